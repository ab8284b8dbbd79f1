"""Decoding methods side by side on the same prompts: what each costs, and who proposed what."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict
from rich import box
from rich.table import Table
from rich.text import Text

from mtjax.arguments import texts
from mtjax.data.streaming import TextStream
from mtjax.decode.generation import Generation
from mtjax.decode.method import Method
from mtjax.registry.build import make_method
from mtjax.registry.configs import decode_config
from mtjax.registry.methods import METHODS
from mtjax.text import TextModel
from mtjax.verify import VERIFIERS

DRAFTED = "green"  # tokens that a drafter proposed; the others are the target's own
_SHOWN = 4  # depths, of the acceptance


@dataclasses.dataclass(frozen=True)
class Contender:
  """A method to compare, with its parameters and what it keeps of the target."""

  method: Method
  params: PyTree
  exactness: str


@dataclasses.dataclass(frozen=True)
class MethodResult:
  """One method's runs, one a prompt, each at batch 1."""

  name: str
  exactness: str
  runs: list[Generation]

  def total(self, counter: str) -> Any:
    return sum(run.counters[counter] for run in self.runs)

  @property
  def tokens_per_forward(self) -> float:
    return self.total("tokens") / self.total("target_forwards")

  @property
  def ms_per_token(self) -> float:
    return 1e3 * self.total("seconds") / self.total("tokens")

  @property
  def acceptance(self) -> list[float]:
    """Share of the rounds that accepted at least 1, 2, ... drafts."""
    counts = [run.counters.get("accepted_at_depth", []) for run in self.runs]
    rounds = self.total("target_forwards") - len(self.runs)
    return (np.sum(np.array(counts, float), axis=0) / max(rounds, 1)).tolist()

  def record(self) -> dict[str, Any]:
    """Everything, for JSON."""
    figures = dict(tokens_per_forward=self.tokens_per_forward, ms_per_token=self.ms_per_token)
    runs = [dataclasses.asdict(run) for run in self.runs]
    return dict(
      name=self.name, exactness=self.exactness, acceptance=self.acceptance, **figures, runs=runs
    )

  def same_text(self, other: "MethodResult") -> float:
    """Share of `other`'s tokens that come before the first difference, over all prompts."""
    equal = total = 0
    for run, reference in zip(self.runs, other.runs, strict=True):
      for tokens, expected in zip(run.tokens, reference.tokens, strict=True):
        same = [a == b for a, b in zip(tokens, expected, strict=False)]
        equal += same.index(False) if False in same else len(same)
        total += len(expected)
    return equal / total


def contenders(names: Sequence[str], config: ConfigDict, text: TextModel) -> dict[str, Contender]:
  """Methods by name, each as its own config has it but for what `config` has too."""
  shared = set(decode_config("ar"))
  out = {}
  for name in texts(names):
    own = decode_config(name)
    own.update({field: config[field] for field in shared if field != "method"})
    method, params = make_method(own.to_dict(), text)
    label = VERIFIERS[own.verifier].exactness if "verifier" in own else METHODS[name].exactness
    out[name] = Contender(method, params, label.value)
  return out


def compare(
  text: TextModel, prompts: Sequence, contenders: Mapping[str, Contender], **settings: Any
) -> Iterator[MethodResult]:
  """Runs every contender on every prompt, one prompt at a time, in the order given.

  settings are those of `TextModel.generate`. Compilation is not in `seconds`. A method that keeps
  what it saw from prompt to prompt (a trie) meets each prompt once.
  """
  prompts = texts(prompts)
  for name, one in contenders.items():
    runs = [
      text.generate([prompt], method=one.method, method_params=one.params, **settings)[1]
      for prompt in prompts
    ]
    yield MethodResult(name, one.exactness, runs)


def table(results: Sequence[MethodResult]) -> Table:
  """One line a method: 80 columns. Speed and text are compared with the first one's."""
  out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
  out.add_column("method", no_wrap=True)
  out.add_column("exactness", no_wrap=True)
  for column in ("tok/fwd", "accept 1 2 3 4", "ms/tok", "speed", "same"):
    out.add_column(column, justify="right", no_wrap=True)
  for result in results:
    shares = [f"{x:.0%}" for x in result.acceptance[:_SHOWN]]
    out.add_row(
      result.name,
      result.exactness,
      f"{result.tokens_per_forward:.2f}",
      " ".join(shares) or "-",
      f"{result.ms_per_token:.3f}",
      f"{results[0].ms_per_token / result.ms_per_token:.2f}x",
      f"{result.same_text(results[0]):.0%}",
    )
  return out


def colored(text: TextModel, tokens: Sequence[int], drafted: Sequence[bool]) -> Text:
  """The text of one row, with what a drafter proposed in color."""
  stream, out = TextStream(text.tokenizer), Text()
  for token, is_draft in zip(tokens, drafted, strict=True):
    out.append(stream.feed([token]), style=DRAFTED if is_draft else None)
  return out.append(stream.finish())
