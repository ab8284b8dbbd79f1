"""Decoding methods side by side on the same prompts: their costs, and which tokens were drafted."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from mtjax.draft import host
from mtjax.registry.build import make_method
from mtjax.registry.configs import decode_config
from mtjax.registry.methods import METHODS
from mtjax.text import TextModel
from mtjax.verify import VERIFIERS

DRAFTED = "green"  # colour of drafted tokens; the target chose the others
_SHOWN = 4  # number of depths of which acceptance is shown


@dataclasses.dataclass(frozen=True)
class Contender:
  """A method to compare, with its parameters and its exactness.

  `renew` returns new parameters for a method that learns from text to text, with an empty store.
  """

  method: Method
  params: PyTree
  exactness: str
  renew: Callable[[], PyTree] | None = None


@dataclasses.dataclass(frozen=True)
class MethodResult:
  """The runs of one method, one per prompt, each at batch 1, and the seconds of every round."""

  name: str
  exactness: str
  runs: list[Generation]  # of the first round
  seconds: list[list[float]]  # per round, per prompt

  def total(self, counter: str) -> Any:
    return sum(run.counters[counter] for run in self.runs)

  @property
  def tokens_per_forward(self) -> float:
    return self.total("tokens") / self.total("target_forwards")

  @property
  def ms_per_token(self) -> float:
    """The median over rounds."""
    return 1e3 * statistics.median(map(sum, self.seconds)) / self.total("tokens")

  @property
  def acceptance(self) -> list[float]:
    """Returns the shares of rounds that accepted at least 1, 2, ... drafts."""
    counts = [run.counters.get("accepted_at_depth", []) for run in self.runs]
    rounds = self.total("target_forwards") - len(self.runs)
    return (np.sum(np.array(counts, float), axis=0) / max(rounds, 1)).tolist()

  def record(self) -> dict[str, Any]:
    """Returns all figures as JSON values."""
    figures = dict(tokens_per_forward=self.tokens_per_forward, ms_per_token=self.ms_per_token)
    runs = [dataclasses.asdict(run) for run in self.runs]
    for run in runs:
      del run["pieces"]  # the text that its tokens spell
    return dict(
      name=self.name, exactness=self.exactness, acceptance=self.acceptance, **figures,
      seconds=self.seconds, runs=runs,
    )  # fmt: skip

  def speed_up(self, other: "MethodResult") -> float:
    """Returns how much faster than `other` it is: the median of the ratios of each round."""
    pairs = zip(map(sum, other.seconds), map(sum, self.seconds), strict=True)
    tokens = self.total("tokens") / other.total("tokens")
    return tokens * statistics.median(theirs / ours for theirs, ours in pairs)

  def same_text(self, other: "MethodResult") -> float:
    """Returns the share of `other`'s tokens before the first difference, over all prompts."""
    equal = total = 0
    for run, reference in zip(self.runs, other.runs, strict=True):
      for tokens, expected in zip(run.tokens, reference.tokens, strict=True):
        same = [a == b for a, b in zip(tokens, expected, strict=False)]
        equal += same.index(False) if False in same else len(same)
        total += len(expected)
    return equal / total


def contenders(names: Sequence[str], config: ConfigDict, text: TextModel) -> dict[str, Contender]:
  """Returns methods by name, with their own configs but for the settings that `config` has too."""
  shared = set(decode_config("ar"))
  out = {}
  for name in texts(names):
    settings = decode_config(name)
    settings.update({field: config[field] for field in shared if field != "method"})
    stores = host.alive()
    method, params = make_method(settings.to_dict(), text)
    renew = None
    if host.alive() != stores:
      renew = functools.partial(_renewed, settings.to_dict(), text)
    label = (
      VERIFIERS[settings.verifier].exactness if "verifier" in settings else METHODS[name].exactness
    )
    out[name] = Contender(method, params, label.value, renew)
  return out


def _renewed(settings, text) -> PyTree:
  return make_method(settings, text)[1]


def compare(
  text: TextModel,
  prompts: Sequence,
  contenders: Mapping[str, Contender],
  *,
  rounds: int = 1,
  progress: Callable[[str], None] = lambda text: None,
  **settings: Any,
) -> Iterator[list[MethodResult]]:
  """Runs every contender on every prompt, one prompt at a time, in interleaved rounds.

  Yields what is known after every contender of the first round, and then after every round.
  settings are those of `TextModel.generate`. `seconds` does not include compilation. A method
  that learns from prompt to prompt (a trie) sees each prompt once per round, and has forgotten all
  when a round begins. `progress` is told what runs; a method is compiled in the run of its first
  prompt.
  """
  prompts, results = texts(prompts), []
  for lap in range(rounds):
    for number, (name, one) in enumerate(contenders.items(), 1):
      params = one.renew() if lap and one.renew is not None else one.params
      runs = []
      for place, prompt in enumerate(prompts, 1):
        doing = "measuring" if lap or runs else "compiling"
        where = f"{name}, {number} of {len(contenders)}: prompt {place} of {len(prompts)}"
        progress(f"{doing} {where}" + f", round {lap + 1} of {rounds}" * (rounds > 1))
        settings |= dict(method=one.method, method_params=params)
        runs.append(text.generate([prompt], **settings)[1])
      seconds = [run.counters["seconds"] for run in runs]
      if not lap:
        results.append(MethodResult(name, one.exactness, runs, [seconds]))
        yield results
      else:
        results[number - 1].seconds.append(seconds)
    if lap:
      yield results


def table(results: Sequence[MethodResult]) -> Table:
  """Returns a table of 80 columns, one line per method, relative to the first method.

  "% accepted" is the share of rounds that accepted at least 1, 2, ... drafts.
  """
  out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
  out.add_column("method", no_wrap=True)
  out.add_column("exactness", no_wrap=True)
  out.add_column("tok/fwd", justify="right", no_wrap=True)
  depths = " ".join(f"{depth:>3}" for depth in range(1, _SHOWN + 1))
  out.add_column(f"% accepted\n{depths}", no_wrap=True)
  for column in ("ms/tok", "speed", "same"):
    out.add_column(column, justify="right", no_wrap=True)
  for result in results:
    shares = " ".join(f"{100 * x:>3.0f}" for x in result.acceptance[:_SHOWN])
    out.add_row(
      result.name,
      result.exactness,
      f"{result.tokens_per_forward:.2f}",
      shares or "  -",
      f"{result.ms_per_token:.3f}",
      f"{result.speed_up(results[0]):.2f}x",
      f"{result.same_text(results[0]):.0%}",
    )
  return out


def colored(text: TextModel, tokens: Sequence[int], drafted: Sequence[bool]) -> Text:
  """Returns the text of one row, with drafted tokens in color."""
  stream, out = TextStream(text.tokenizer), Text()
  for token, is_draft in zip(tokens, drafted, strict=True):
    out.append(stream.feed([token]), style=DRAFTED if is_draft else None)
  return out.append(stream.finish())
