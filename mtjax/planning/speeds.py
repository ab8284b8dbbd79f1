"""The speed that methods have here: they are decoded with, in turn."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import PyTree

from mtjax.decode.method import Autoregressive, Method
from mtjax.planning.texts import BUNDLED_TEXTS
from mtjax.sampling.logits import Sampling
from mtjax.text import Prompt, TextModel

# Returns a method and its parameters anew: a store on the host then knows nothing of earlier texts.
Make = Callable[[], tuple[Method, PyTree]]


def plain() -> tuple[Method, PyTree]:
  """Returns plain decoding, as a `Make`."""
  return Autoregressive(), None


def balanced_order(names: Sequence[str], number: int) -> list[str]:
  """Returns the names in the order of a turn.

  In as many turns as there are names, or twice as many where their number is odd, each is equally
  often the first, and follows each other one equally often (E. J. Williams, Aust. J. Sci. Res. 2,
  1949). For an odd number of names, every second turn is reversed.
  """
  count = len(names)
  steps = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(count)]
  order = [names[(number + step) % count] for step in steps]
  return order[::-1] if count % 2 and number % 2 else order


def measure_speeds(
  text: TextModel,
  systems: Mapping[str, Make],
  *,
  batch: int,
  texts: Mapping[str, Sequence[Prompt]] = BUNDLED_TEXTS,
  sampling: Sampling | None = None,
  max_tokens: int = 64,
  repeats: int = 3,
  progress: Callable[[str], None] = lambda _: None,
) -> dict[str, list[float]]:
  """Returns tokens per second of the whole batch, of each system in each of `repeats` passes.

  A pass decodes every batch with all systems in turn, so that other work on the machine slows all
  alike. What was decoded before fills the processor's caches, so each of them is equally often the
  first, and behind each other one, as far as the number of batches allows (`balanced_order`). One
  batch before the first pass compiles and is not counted. The prompts' own pass through the target,
  with the token that it emits, is measured in the same turn and left out: what counts is the time
  of rounds. A drafter's own reading of the prompt is in the time. The rows of a batch are of all
  domains in turn, as a plan expects. Raises ValueError for no text, and as `generate` does.
  """
  by_turns = itertools.zip_longest(*texts.values())
  prompts = [prompt for turn in by_turns for prompt in turn if prompt is not None]
  if not prompts:
    raise ValueError("there is no text to decode: give at least one domain with a prompt")
  batches, names = batches_of(prompts, batch), list(systems)
  out: dict[str, list[float]] = {name: [] for name in names}
  settings: dict[str, Any] = dict(sampling=sampling, eos=())
  for number in range(repeats + 1):
    progress(f"batch {batch}: {f'pass {number} of {repeats}' if number else 'compiling'}")
    tokens, seconds = dict.fromkeys(systems, 0), dict.fromkeys(systems, 0.0)
    # Prompts of one length have one program.
    for place, rows in enumerate(batches if number else batches[:1]):
      before = _run(text, plain, rows, max_tokens=1, **settings)[1]
      for name in balanced_order(names, number * len(batches) + place):
        emitted, took = _run(text, systems[name], rows, max_tokens=max_tokens, **settings)
        tokens[name] += emitted - batch
        seconds[name] += max(took - before, 1e-9)
    if number:
      for name in systems:
        out[name].append(tokens[name] / seconds[name])
  return out


def batches_of(prompts: Sequence[Prompt], batch: int) -> list[list[Prompt]]:
  """Returns full batches in which all prompts stand, as equally often as may be."""
  count = -(-len(prompts) // batch)
  rows = [prompts[place % len(prompts)] for place in range(count * batch)]
  return [rows[at : at + batch] for at in range(0, len(rows), batch)]


def _run(text: TextModel, make: Make, rows: Sequence[Prompt], **settings) -> tuple[int, float]:
  """Returns the tokens of a batch and the seconds that they took, without compilation."""
  method, params = make()
  _, run = text.generate(rows, method=method, method_params=params, **settings)
  return run.counters["tokens"], run.counters["seconds"]
