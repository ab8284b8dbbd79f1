"""Systems that generate text, each opened in a separate process by `worker`.

A system is a module here with a function `open_system(folder, threads, **settings) -> Run`, where
folder holds models in the transformers format. Adding one: a file here and a line in SYSTEMS.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class WorkerJob:
  """The settings for a batch of prompts."""

  tokens: int  # number of tokens that every row emits, unless it ends before
  temperature: float = 0.0  # 0 is greedy; there are no other filters
  seed: int = 0
  # Tokens that end a row, of which each is its last; without them end tokens are like others.
  ends: Sequence[int] = ()

  def check_greedy(self) -> None:
    """Raises ValueError for a temperature, in systems that are only timed greedily."""
    if self.temperature:
      raise ValueError(f"this system is timed greedily, not at temperature {self.temperature}")


class SystemText(NamedTuple):
  """The new tokens of each row, and their cost if the system reports it."""

  tokens: list[list[int]]
  forwards: int | None = None  # the target's forward passes, including prefill, over all rows
  counters: dict[str, Any] | None = None  # other counters
  # The first tokens are those of the forward pass over the prompt: one per row, or more where that
  # pass checks drafts too. The seconds are those of the call until they are there, without
  # compilation. Both are sums over rows that are decoded one after the other.
  first_seconds: float | None = None
  first_tokens: int | None = None


@runtime_checkable
class Run(Protocol):
  """An opened system."""

  def __call__(self, prompts: Sequence[Sequence[int]], job: WorkerJob) -> SystemText:
    """Decodes prompts of equal length. Raises ValueError for an unsupported temperature."""
    ...


class Remembering(Run, Protocol):
  """A system that learns from a text for the texts after it."""

  def forget(self) -> None:
    """Returns to the state in which it was opened."""
    ...


@dataclasses.dataclass(frozen=True)
class System:
  """The module and the settings with which a worker opens a system."""

  module: str  # name of a module of this package
  settings: Mapping[str, Any]  # arguments of its open_system, as JSON values
  packages: tuple[str, ...] = ()

  def missing(self) -> str | None:
    """Returns why it cannot run here, or None."""
    names = [name for name in self.packages if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(names)}" if names else None


_HF = ("torch", "transformers")
_GGUF = ("llama_cpp", "gguf")


def _plain(module: str, variant: str, *packages: str) -> System:
  return System(module, dict(variant=variant), packages)


# Name in tables -> plain decoding, one token per forward; "file" is the model's own GGUF file.
SYSTEMS = {
  "transformers eager": _plain("transformers_ar", "eager", *_HF),
  "transformers eager bf16": _plain("transformers_ar", "bf16", *_HF),
  "transformers static cache": _plain("transformers_ar", "static", *_HF),
  "transformers compiled": _plain("transformers_ar", "compiled", *_HF),
  "ctranslate2 float32": _plain("ctranslate2_ar", "float32", "ctranslate2"),
  "ctranslate2 int8": _plain("ctranslate2_ar", "int8", "ctranslate2"),
  "llama.cpp f32": _plain("llama_cpp_ar", "f32", *_GGUF),
  "llama.cpp bf16": _plain("llama_cpp_ar", "bf16", *_GGUF),
  "llama.cpp f16": _plain("llama_cpp_ar", "f16", *_GGUF),
  "llama.cpp q8_0": _plain("llama_cpp_ar", "q8_0", *_GGUF),
  "llama.cpp file": _plain("llama_cpp_ar", "file", *_GGUF),
  "mtjax xla float32": _plain("mtjax_ar", "xla"),
  "mtjax": _plain("mtjax_ar", "stored"),
  "mtjax float32": _plain("mtjax_ar", "float32"),
  "mtjax bfloat16": _plain("mtjax_ar", "bfloat16"),
  "mtjax int8": _plain("mtjax_ar", "int8"),
}


def _assisted(**settings) -> System:
  return System("transformers_assisted", settings, _HF)


# Name -> methods of transformers with several tokens per forward; the folder has "target", "draft".
TRANSFORMERS = {
  "transformers eager": _assisted(),
  # The default: 20 tokens, fewer where the draft model's probability falls below 0.4.
  "transformers assisted": _assisted(assistant={}),
  "transformers assisted 5": _assisted(
    assistant=dict(num_assistant_tokens=5, assistant_confidence_threshold=0.0)
  ),
  "transformers prompt lookup 3": _assisted(generate=dict(prompt_lookup_num_tokens=3)),
  "transformers prompt lookup 5": _assisted(generate=dict(prompt_lookup_num_tokens=5)),
  "transformers prompt lookup 10": _assisted(generate=dict(prompt_lookup_num_tokens=10)),
}


def _llama(weights: str, **lookup) -> System:
  return System("llama_cpp_method", dict(weights=weights, lookup=lookup or None), _GGUF)


# llama.cpp on "target" of the folder; "file" is the GGUF file that the model comes from.
LLAMA_CPP = {
  f"llama.cpp {weights}{name}": _llama(weights, **lookup)
  for weights in ("f16", "q8_0", "file")
  for name, lookup in (("", {}), (" lookup", dict(max_ngram_size=3, num_pred_tokens=5)))
}
