"""What one draft for several targets is worth: acceptance, time and where its drafts left it."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import PyTree

from mtjax.decode.method import Method
from mtjax.decode.speculative import Speculative, SpeculativeState
from mtjax.draft import S2D, Drafter, ModelChain
from mtjax.models import Params, prefix_params
from mtjax.text import TextModel


@dataclasses.dataclass(frozen=True)
class Counted(Speculative):
  """Counts the drafts that left at each exit as well, for drafters that have exits."""

  def counters(self, kept: SpeculativeState, rounds: int) -> dict[str, Any]:
    left = getattr(kept.drafter, "left", None)
    return {**super().counters(kept, rounds), "left": [] if left is None else left.tolist()}


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A way to draft for one target, and all parameters that it takes to do so for every target."""

  drafter: Drafter
  params: Params
  memory: list[Params]
  exits: tuple[int, ...] = ()


def candidates(
  adaptive: S2D, params: Params, separate: Sequence[TextModel], own: int
) -> dict[str, Candidate]:
  """{name: Candidate} of the three that 2407.01955 compares; separate[own] is this target's."""
  found = {"sorted, adaptive": Candidate(adaptive, params, [params], adaptive.exits)}
  for layers in adaptive.exits:
    fixed = dataclasses.replace(adaptive, exits=(layers,), thresholds=(0.0,))
    cut = prefix_params(params, layers)
    found[f"sorted, layer {layers}"] = Candidate(fixed, cut, [cut], (layers,))
  chain = ModelChain(separate[own].model, adaptive.length)
  every = [text.params for text in separate]
  return {**found, "one for each": Candidate(chain, separate[own].params, every)}


def measure(
  target: TextModel, prompts: Sequence, method: Method, params: PyTree, **settings: Any
) -> dict[str, Any]:
  """Counters summed over the prompts, each a batch of one."""
  given: dict[str, Any] = dict(method=method, method_params=params, eos=(), **settings)
  runs = [target.generate([prompt], **given)[1].counters for prompt in prompts]
  sums = {name: sum(run[name] for run in runs) for name in ("seconds", "tokens", "target_forwards")}
  for name in ("drafted_at_depth", "accepted_at_depth", "left"):
    sums[name] = [sum(column) for column in zip(*(run.get(name, ()) for run in runs), strict=True)]
  return sums


def figures(runs: Sequence[Mapping[str, Any]], exits: Sequence[int]) -> dict[str, str]:
  """Cells of a table: of counts from the first run, of time the median."""
  first, left = runs[0], sum(runs[0]["left"])
  drafted = sum(first["drafted_at_depth"])
  layers = sum(n * e for n, e in zip(first["left"], exits, strict=False))
  milliseconds = statistics.median(1e3 * run["seconds"] / run["tokens"] for run in runs)
  return {
    "accepted": f"{sum(first['accepted_at_depth']) / drafted:.3f}" if drafted else "-",
    "tokens/forward": f"{first['tokens'] / first['target_forwards']:.3f}",
    "ms/token": f"{milliseconds:.2f}",
    "layers": f"{layers / left:.2f}" if left else "-",
  }
