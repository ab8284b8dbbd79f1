"""One model and one drafter on several machines: their plans against simulated decoding."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtjax.trees import Topology
from mtjax.tuning import Competitor, Siblings, plan
from mtjax.tuning.elsewhere import DistantDrafter, distant_curve
from mtjax.tuning.profiles import LatencyCurve, fit_curve
from mtjax.tuning.roofline import ModelShape, parse_machine
from mtjax.tuning.shapes.rated import Rates
from mtjax.tuning.simulation import SimulatedPlan, against_grid

Planner = Callable[[Competitor], Topology]


def planned(competitor: Competitor) -> Topology:
  """Returns the tree that the planner chooses for one drafter."""
  return plan([competitor]).choice.topology


def first_layers(shape: ModelShape, layers: int) -> ModelShape:
  """Returns a draft model: the first layers of a target, with its head."""
  return dataclasses.replace(shape, windows=shape.windows[:layers])


def measured_curve(
  points: Sequence[Mapping[str, Any]], target: ModelShape, draft: ModelShape, *, steps: int
) -> LatencyCurve:
  """Returns the times of a CPU from measured passes of the target, at batch 1.

  points: rows of the benchmark of verification, with "entries" and "seconds". A step of the draft
  model takes as much less than a pass over one entry as it has fewer weights: both read all of
  theirs.
  """
  verify = [(int(row["entries"]), float(row["seconds"])) for row in points]
  step = min(verify)[1] * draft.weights / target.weights
  return fit_curve(1, 256, verify=verify, draft=[(1, step), (steps, step * steps)])


def curves(
  rows: Sequence[Mapping[str, Any]],
  machines: Sequence[str],
  target: ModelShape,
  draft: ModelShape,
  rates: Rates,
  *,
  weights: str = "float32",
  max_entries: int = 256,
) -> dict[str, LatencyCurve]:
  """Returns the times by machine: of the CPU by threads, measured, and of others by the roofline.

  rows: of a results file of the benchmark of verification. max_entries: of other machines; those of
  the CPU are as many as were measured. Raises ValueError for results without these weights.
  """
  own = [row for row in rows if row["weights"] == weights]
  if not own:
    raise ValueError(f"the results of verification have no {weights} weights")
  out = {}
  for threads in sorted({row["threads"] for row in own}):
    points = [row for row in own if row["threads"] == threads]
    name = f"CPU, {threads} thread{'s' * (threads != 1)}"
    out[name] = measured_curve(points, target, draft, steps=len(rates))
  drafter = DistantDrafter("draft", rates, draft)
  for name in machines:
    out[name] = distant_curve(
      parse_machine(name), target, drafter, batch=1, context=256, max_entries=max_entries
    )
  return out


def compare(
  times: Mapping[str, LatencyCurve],
  rates: Rates,
  *,
  planner: Planner = planned,
  rounds: int = 20_000,
  seed: int = 0,
) -> dict[str, SimulatedPlan]:
  """Returns each machine's planned tree beside the best of a grid, in simulated rounds."""
  out = {}
  for name, curve in times.items():
    competitor = Competitor("draft", rates, curve, Siblings.IN_ORDER)
    out[name] = against_grid(planner(competitor), competitor, rounds=rounds, seed=seed)
  return out
