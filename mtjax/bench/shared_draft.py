"""One draft for several targets: its acceptance, its time, and the exits of its drafts."""

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
  """Speculative decoding that also counts the drafts per exit, for drafters that have exits."""

  def counters(self, kept: SpeculativeState, rounds: int) -> dict[str, Any]:
    left = getattr(kept.drafter, "left", None)
    return {**super().counters(kept, rounds), "left": [] if left is None else left.tolist()}


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A drafter for one target, and the parameters of the same kind of drafter for all targets."""

  drafter: Drafter
  params: Params
  memory: list[Params]
  exits: tuple[int, ...] = ()


def candidates(
  adaptive: S2D, params: Params, separate: Sequence[TextModel], index: int
) -> dict[str, Candidate]:
  """Returns {name: Candidate} of the kinds in 2407.01955; separate[index] is the target's draft."""
  named = {"sorted, adaptive": Candidate(adaptive, params, [params], adaptive.exits)}
  for layers in adaptive.exits:
    fixed = dataclasses.replace(adaptive, exits=(layers,), thresholds=(0.0,))
    cut = prefix_params(params, layers)
    named[f"sorted, layer {layers}"] = Candidate(fixed, cut, [cut], (layers,))
  chain = ModelChain(separate[index].model, adaptive.length)
  every = [text.params for text in separate]
  return {**named, "one for each": Candidate(chain, separate[index].params, every)}


def measure(
  target: TextModel, prompts: Sequence, method: Method, params: PyTree, **settings: Any
) -> dict[str, Any]:
  """Returns counters summed over the prompts, each of which is a batch of one."""
  arguments: dict[str, Any] = dict(method=method, method_params=params, eos=(), **settings)
  runs = [target.generate([prompt], **arguments)[1].counters for prompt in prompts]
  sums = {name: sum(run[name] for run in runs) for name in ("seconds", "tokens", "target_forwards")}
  for name in ("drafted_at_depth", "accepted_at_depth", "left"):
    sums[name] = [sum(column) for column in zip(*(run.get(name, ()) for run in runs), strict=True)]
  return sums


def figures(runs: Sequence[Mapping[str, Any]], exits: Sequence[int]) -> dict[str, str]:
  """Returns the cells of a table: counts of the first run, and the median of times."""
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
