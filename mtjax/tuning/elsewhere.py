"""Plans for machines that are not at hand: from acceptance that is known, and a roofline."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from mtjax.tuning.competitors import Competitor, Siblings
from mtjax.tuning.plan import SpeculationPlan, plan
from mtjax.tuning.profiles.latency import LatencyCurve
from mtjax.tuning.roofline.curve import predict_curve
from mtjax.tuning.roofline.machines import Machine
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.step import MeshSize, held_bytes, step_cost
from mtjax.tuning.shapes.rated import Rates

# Assumptions, both in seconds: what a program costs that asks its host once per round, and what a
# look into a store there takes per step.
HOST_ROUND, HOST_STEP = 100e-6, 1e-6


@dataclasses.dataclass(frozen=True)
class DistantDrafter:
  """A drafter whose acceptance is known; its times are those that a roofline predicts.

  shape: of its draft model; None: it has none, and looks into a store on the host.
  """

  name: str
  rates: Rates  # `mtjax.tuning.shapes.rate` says what they mean
  shape: ModelShape | None = None
  siblings: Siblings = Siblings.IN_ORDER


class DistantMeshes(NamedTuple):
  """The meshes of a target and of its draft model; None: it has none."""

  target: MeshSize
  draft: MeshSize | None


def distant_meshes(
  machine: Machine,
  target: ModelShape,
  draft: ModelShape | None,
  *,
  batch: int,
  context: int,
  max_entries: int = 64,
) -> DistantMeshes:
  """Returns the meshes of two models on one machine: each has its own (`Machine.mesh`).

  The target leaves as much memory as the draft model needs at least. Raises ValueError for two
  models that do not fit into memory together.
  """
  sizes, tokens = dict(batch=batch, context=context), context + max_entries
  if draft is None:
    return DistantMeshes(machine.mesh(target, entries=max_entries, **sizes), None)
  needed = machine.least_held(draft, batch=batch, tokens=tokens)
  first = machine.mesh(target, entries=max_entries, others=needed, **sizes)
  held = held_bytes(target, batch=batch, tokens=tokens, mesh=first)
  second = machine.mesh(draft, entries=max_entries, others=held, **sizes)
  held += held_bytes(draft, batch=batch, tokens=tokens, mesh=second)
  if held > machine.hardware.memory:
    raise ValueError(
      f"target and draft model with their caches take {held / 1e9:.1f} GB per device, "
      f"{machine.name} has {machine.hardware.memory / 1e9:.0f} GB: use more devices, a smaller "
      "batch or less context"
    )
  return DistantMeshes(first, second)


def distant_curve(
  machine: Machine,
  target: ModelShape,
  drafter: DistantDrafter,
  *,
  batch: int,
  context: int,
  max_entries: int = 64,
) -> LatencyCurve:
  """Returns the times of a target with a drafter that the roofline predicts for a machine.

  Both models are on their meshes of `distant_meshes`. A step of a draft model is a pass over one
  entry per row, also where a level of the tree has several nodes. Raises ValueError as `step_cost`
  and `distant_meshes` do.
  """
  sizes = dict(batch=batch, context=context)
  meshes = distant_meshes(machine, target, drafter.shape, max_entries=max_entries, **sizes)
  step, fixed = HOST_STEP, machine.hardware.start
  if drafter.shape is None or meshes.draft is None:
    fixed += HOST_ROUND
  else:
    cost = step_cost(machine.hardware, drafter.shape, entries=1, mesh=meshes.draft, **sizes)
    step = float(cost.seconds)
  return predict_curve(
    machine.hardware,
    target,
    step,
    mesh=meshes.target,
    max_entries=max_entries,
    max_steps=len(drafter.rates),
    fixed=fixed,
    **sizes,
  )


def plan_elsewhere(
  machine: Machine,
  target: ModelShape,
  drafters: Sequence[DistantDrafter],
  *,
  batch: int,
  context: int,
  max_entries: int = 64,
) -> tuple[SpeculationPlan, tuple[Competitor, ...]]:
  """Returns the plan for a machine that is not here, and what competed. Nothing is measured.

  Plain decoding leaves no memory to a draft model, so its mesh may be a faster one. max_entries:
  per row in the target's pass. Raises ValueError as `distant_curve` and `plan` do.
  """
  sizes = dict(batch=batch, context=context, max_entries=max_entries)
  competitors = tuple(
    Competitor(
      one.name,
      one.rates,
      distant_curve(machine, target, one, **sizes),
      one.siblings,
    )
    for one in drafters
  )
  alone = [
    distant_curve(machine, target, dataclasses.replace(one, shape=None), **sizes).plain
    for one in drafters[:1]
  ]
  competitors = tuple(
    dataclasses.replace(
      one, latency=dataclasses.replace(one.latency, plain=min(one.latency.plain, *alone))
    )
    for one in competitors
  )
  return plan(competitors), competitors
