"""Methods of decoding that answer the questions of a task, by the names of a command line."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import PyTree

from mtjax.decode.method import Method
from mtjax.registry.build import make_method
from mtjax.registry.methods import METHODS
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.types import Exactness
from mtjax.verify import VERIFIERS

REFERENCE = "ar"  # the method whose text the others are compared with
_SAME_AT_ANY_TEMPERATURE = "sample_match"


class Written(NamedTuple):
  """What a method wrote after one prompt."""

  text: str  # without the stop string that it ended before
  tokens: list[int]
  finish: str  # "eos", "stop" or "length"
  steps: list[int]  # how many of the tokens each pass decided
  forwards: int  # forward passes of the network


@runtime_checkable
class AnsweringMethod(Protocol):
  """A method that writes answers, with its exactness."""

  @property
  def exactness(self) -> Exactness:
    """What it keeps of the model's distribution."""
    ...

  @property
  def same_text(self) -> bool:
    """Whether its text must be that of `ar`."""
    ...

  def length(self, max_tokens: int) -> int:
    """Returns the largest number of tokens of an answer, where the task allows `max_tokens`."""
    ...

  def write(
    self,
    model: TextModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[str],
    max_tokens: Sequence[int],
    temperature: float,
    key: jax.Array,
  ) -> tuple[list[Written], float]:
    """Returns what the method writes after each prompt, and the seconds that it took."""
    ...


@dataclasses.dataclass(frozen=True)
class DecodingMethod:
  """A method of decoding with its parameters."""

  method: Method
  params: PyTree
  exactness: Exactness
  same_text: bool

  def length(self, max_tokens: int) -> int:
    """Returns `max_tokens`."""
    return max_tokens

  def write(
    self,
    model: TextModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[str],
    max_tokens: Sequence[int],
    temperature: float,
    key: jax.Array,
  ) -> tuple[list[Written], float]:
    """Returns what the method writes, and the seconds that it took, without compilation."""
    completions, generation = model.generate(
      prompts,
      stop=stop,
      method=self.method,
      method_params=self.params,
      max_tokens=list(max_tokens),
      sampling=Sampling(temperature=temperature),
      key=key,
    )
    written = []
    for one, drafted in zip(completions, generation.drafted, strict=True):
      steps = step_lengths(drafted)
      written.append(Written(one.text, one.tokens, one.finish, steps, len(steps)))
    return written, generation.counters["seconds"]


def answering(
  configs: Mapping[str, Mapping[str, Any]],
  model: TextModel,
  *,
  temperature: float,
  batch: int = 1,
  tokens: int = 0,
) -> dict[str, DecodingMethod]:
  """Returns methods by name, from configs of configs/decode.

  temperature, batch, and tokens of the longest row: those of the questions with their answers,
  which a plan is made for. Greedy text is the same for every method that is lossless or
  greedy-lossless. Sampled text is the same under the verifier sample_match, which takes the tokens
  that `ar` samples; other lossless verifiers keep only the distribution. Raises ValueError as
  `make_method` does.
  """
  out = {}
  for name, config in configs.items():
    settings = {**config, "temperature": temperature}
    method, params = make_method(settings, model, batch=batch, tokens=tokens)
    verifier = config.get("verifier")
    plain = verifier is None
    exactness = METHODS[config["method"]].exactness if plain else VERIFIERS[verifier].exactness
    same = exactness is not Exactness.APPROXIMATE
    if temperature:
      same = plain or verifier == _SAME_AT_ANY_TEMPERATURE
    out[name] = DecodingMethod(method, params, exactness, same)
  return out


def step_lengths(drafted: Sequence[bool]) -> list[int]:
  """Returns how many tokens of a row each forward pass emitted, the prompt's pass first.

  Each pass ends with a token of the target's own, unless the row ended within its drafts.
  """
  ends = [place + 1 for place, is_draft in enumerate(drafted) if not is_draft]
  if drafted and drafted[-1]:
    ends.append(len(drafted))
  return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def cut(text: str, stop: Sequence[str], finish: str) -> tuple[str, str]:
  """Returns the text before the first of the stop strings, and how it ends: "stop" or `finish`."""
  places = [place for word in stop if (place := text.find(word)) >= 0]
  return (text[: min(places)], "stop") if places else (text, finish)
