"""Systems that generate text, each opened in a process of its own by `worker`.

A system is a module here with a function `open_system(folder, threads, **settings) -> Run`, where
folder holds models in the transformers format. Adding one: a file here and a line in SYSTEMS.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Job:
  """What to do with a batch of prompts."""

  tokens: int  # every row emits so many: end tokens are tokens like others
  temperature: float = 0.0  # 0: greedy; else no other filter
  seed: int = 0

  def check_greedy(self) -> None:
    """For systems that do not sample here. Raises ValueError."""
    if self.temperature:
      raise ValueError(f"this system is timed greedily, not at temperature {self.temperature}")


class SystemText(NamedTuple):
  """New tokens of each row, and what they cost where the system can say it."""

  tokens: list[list[int]]
  forwards: int | None = None  # of the target, prefill among them, summed over rows
  counters: dict[str, Any] | None = None  # more of the kind


@runtime_checkable
class Run(Protocol):
  """An opened system."""

  def __call__(self, prompts: Sequence[Sequence[int]], job: Job) -> SystemText:
    """Prompts of equal length. Raises ValueError for a temperature that it does not take."""
    ...


class Remembering(Run, Protocol):
  """A system that learns from a text for the texts after it."""

  def forget(self) -> None:
    """Back to how it was opened."""
    ...


@dataclasses.dataclass(frozen=True)
class System:
  """How a worker opens a system."""

  module: str  # of this package
  settings: Mapping[str, Any]  # of its open_system, as JSON has them
  packages: tuple[str, ...] = ()

  def missing(self) -> str | None:
    """Why it cannot run here, if it cannot."""
    names = [name for name in self.packages if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(names)}" if names else None


_HF = ("torch", "transformers")
_GGUF = ("llama_cpp", "gguf")


def _plain(module: str, variant: str, *packages: str) -> System:
  return System(module, dict(variant=variant), packages)


# Name in tables -> plain decoding, a token a forward.
SYSTEMS = {
  "transformers eager": _plain("transformers_ar", "eager", *_HF),
  "transformers eager bf16": _plain("transformers_ar", "bf16", *_HF),
  "transformers static cache": _plain("transformers_ar", "static", *_HF),
  "transformers compiled": _plain("transformers_ar", "compiled", *_HF),
  "ctranslate2 float32": _plain("ctranslate2_ar", "float32", "ctranslate2"),
  "ctranslate2 int8": _plain("ctranslate2_ar", "int8", "ctranslate2"),
  "llama.cpp f32": _plain("llama_cpp_ar", "f32", *_GGUF),
  "llama.cpp bf16": _plain("llama_cpp_ar", "bf16", *_GGUF),
  "llama.cpp q8_0": _plain("llama_cpp_ar", "q8_0", *_GGUF),
  "mtjax xla float32": _plain("mtjax_ar", "xla"),
  "mtjax": _plain("mtjax_ar", "stored"),
  "mtjax float32": _plain("mtjax_ar", "float32"),
  "mtjax int8": _plain("mtjax_ar", "int8"),
}


def _assisted(**settings) -> System:
  return System("transformers_assisted", settings, _HF)


# Name -> transformers' ways to several tokens a forward; the folder holds "target" and "draft".
TRANSFORMERS = {
  "transformers eager": _assisted(),
  # 20 tokens, fewer where the draft model's probability falls below 0.4: what it does unasked.
  "transformers assisted": _assisted(assistant={}),
  "transformers assisted 5": _assisted(
    assistant=dict(num_assistant_tokens=5, assistant_confidence_threshold=0.0)
  ),
  "transformers prompt lookup 3": _assisted(generate=dict(prompt_lookup_num_tokens=3)),
  "transformers prompt lookup 5": _assisted(generate=dict(prompt_lookup_num_tokens=5)),
  "transformers prompt lookup 10": _assisted(generate=dict(prompt_lookup_num_tokens=10)),
}
