"""Latency profiles of models on this machine, the roofline that explains them, and their trees."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mtjax.bench.attention.clock import DoesNotFit, check_fits, refusing_what_does_not_fit
from mtjax.bench.planning.profiled import ProfiledModel, device_memory, load_profiled
from mtjax.planning import measure_latency
from mtjax.planning.identity import device_kind
from mtjax.planning.latency import SIZES, STEPS
from mtjax.tuning import Competitor, PlannedRound, Siblings, SpeculationPlan, plan
from mtjax.tuning.elsewhere import HOST_ROUND, HOST_STEP
from mtjax.tuning.plan import expected_of
from mtjax.tuning.profiles import LatencyCurve
from mtjax.tuning.roofline import (
  Hardware,
  MeasuredStep,
  MeshSize,
  ModelShape,
  RooflineFit,
  fit_hardware,
  nearest_hardware,
  predict_curve,
  roofline_errors,
)
from mtjax.tuning.shapes.rated import Rates

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class LatencySettings:
  """What is measured of every model; the fields are those of `measure_latency`, `load_profiled`."""

  batches: Sequence[int] = (1,)
  contexts: Sequence[int] = (256,)
  sizes: Sequence[int] = SIZES
  steps: Sequence[int] = STEPS
  seconds: float = 120.0  # per model and batch size
  draft: str | None = None
  dtype: str | None = None
  mesh: Mesh | None = None
  layers: str = "unrolled"


@dataclasses.dataclass(frozen=True)
class LatencyCell:
  """The measured times of one model at one batch size and one length of context."""

  model: str
  draft: str
  shape: ModelShape
  draft_shape: ModelShape | None  # None: prompt lookup
  mesh: MeshSize
  curve: LatencyCurve

  @property
  def title(self) -> str:
    """The models and sizes, in words."""
    batch, context = self.curve.batch, self.curve.context
    return f"{self.model} with {self.draft}, batch {batch}, context {context}"

  @property
  def points(self) -> list[MeasuredStep]:
    """The measured passes of the target."""
    curve = self.curve
    return [
      MeasuredStep(self.shape, curve.batch, entries, curve.context, seconds, self.mesh)
      for entries, seconds in zip(curve.verify.amount, curve.verify.measured, strict=True)
    ]

  @property
  def seconds_per_step(self) -> float:
    """The time of a further step of drafting; with one measured number of steps, of all alike."""
    steps, seconds = self.curve.draft.amount, self.curve.draft.fitted
    if len(steps) == 1:
      return seconds[0] / max(steps[0], 1)
    return (seconds[-1] - seconds[0]) / (steps[-1] - steps[0])

  def predicted(self, hardware: Hardware) -> LatencyCurve:
    """Returns the curve that a roofline predicts, up to as many entries and steps.

    Prompt lookup takes what `mtjax.tuning.elsewhere` assumes.
    """
    lookup = self.draft_shape is None
    return predict_curve(
      dataclasses.replace(hardware, memory=math.inf),  # what was measured did fit
      self.shape,
      HOST_STEP if self.draft_shape is None else self.draft_shape,
      batch=self.curve.batch,
      context=self.curve.context,
      mesh=self.mesh,
      max_entries=self.curve.max_entries,
      max_steps=self.curve.max_steps,
      fixed=hardware.start + HOST_ROUND * lookup,
    )


@dataclasses.dataclass(frozen=True)
class CellPlans:
  """The plans of one cell: by its measured curve, and by the one that the roofline predicts."""

  measured: SpeculationPlan
  predicted: SpeculationPlan
  # The round that the prediction chose, at its measured times.
  tried: PlannedRound

  @property
  def tried_speedup(self) -> float:
    """The speed of the predicted choice over plain decoding, both by the measured curve."""
    return self.tried.tokens_per_second / self.measured.plain.tokens_per_second


@dataclasses.dataclass(frozen=True)
class LatencyFindings:
  """All cells that were measured so far, and one roofline for all of them.

  sheet: the device of HARDWARE that the fit begins with. rates: of acceptance, by depth and rank.
  left_out: sentences, one for each model or cell that could not be measured.
  """

  sheet: Hardware
  rates: Rates
  cells: tuple[LatencyCell, ...] = ()
  left_out: tuple[str, ...] = ()

  @property
  def points(self) -> list[MeasuredStep]:
    """The measured passes of all cells."""
    return [point for cell in self.cells for point in cell.points]

  @functools.cached_property
  def fit(self) -> RooflineFit:
    """The roofline that is nearest to all points. Raises ValueError without any."""
    return fit_hardware(self.sheet, self.points)

  @functools.cached_property
  def sheet_errors(self) -> Float[np.ndarray, " M"]:
    """The errors of the roofline of the data sheet, predicted / measured - 1."""
    return roofline_errors(self.sheet, self.points)

  def plans(self, cell: LatencyCell) -> CellPlans:
    """Returns the best rounds of a cell for these rates."""
    return self._plans[self.cells.index(cell)]

  @functools.cached_property
  def _plans(self) -> list[CellPlans]:
    return [self._planned(cell) for cell in self.cells]

  def _planned(self, cell: LatencyCell) -> CellPlans:
    siblings = Siblings.ONE if cell.draft_shape is None else Siblings.IN_ORDER
    own, predicted = (
      Competitor(cell.draft, self.rates, curve, siblings)
      for curve in (cell.curve, cell.predicted(self.fit.hardware))
    )
    found, other = plan([own]), plan([predicted])
    drafts = other.choice.drafter is not None
    return CellPlans(found, other, expected_of(own, other.choice) if drafts else found.plain)

  def rows(self) -> list[dict[str, Any]]:
    """Returns the figures of each cell, for a file of results."""
    return [self._row(cell) for cell in self.cells]

  def _row(self, cell: LatencyCell) -> dict[str, Any]:
    curve, plans = cell.curve, self.plans(cell)
    predicted = cell.predicted(self.fit.hardware)
    return dict(
      model=cell.model,
      draft=cell.draft,
      batch=curve.batch,
      context=curve.context,
      mesh=dataclasses.asdict(cell.mesh),
      dtype=cell.shape.dtype,
      weight_bytes=cell.shape.weight_bytes,
      entries=list(curve.verify.amount),
      seconds=list(curve.verify.measured),
      fitted_seconds=list(curve.verify.fitted),
      roofline_seconds=predicted.verify(curve.verify.amount).tolist(),
      steps=list(curve.draft.amount),
      draft_seconds=list(curve.draft.fitted),
      fixed_seconds=curve.fixed,
      plain_seconds=curve.plain,
      kept_out_errors=list(curve.round_errors),
      plan=_planned(plans.measured),
      roofline_plan=_planned(plans.predicted) | dict(measured_speedup=plans.tried_speedup),
    )


def measure_models(
  names: Sequence[str],
  rates: Rates,
  settings: LatencySettings,
  *,
  progress: Progress = lambda _: None,
) -> Iterator[LatencyFindings]:
  """Yields what was found so far, whenever a cell was measured or left out.

  A model is in memory only while it is measured. What the device has no memory for, or a model no
  positions, is left out, and the rest goes on. Raises ValueError for a type that the roofline knows
  no speed of, and as `load_profiled` and `measure_latency` do.
  """
  device = jax.devices()[0]
  found = LatencyFindings(nearest_hardware(device.platform, device.device_kind), rates)
  if settings.dtype is not None:
    found.sheet.flops_of(settings.dtype)

  def left_out(sentence: str) -> LatencyFindings:
    progress(sentence)
    return dataclasses.replace(found, left_out=(*found.left_out, sentence))

  def without(what: str, error: DoesNotFit) -> LatencyFindings:
    return left_out(f"{what} does not fit into the memory: {error}")

  for name in names:
    progress(f"{name}: loading")
    try:
      with refusing_what_does_not_fit():
        model = load_profiled(
          name, settings.draft, dtype=settings.dtype, mesh=settings.mesh, layers=settings.layers
        )
    except DoesNotFit as error:
      found = without(name, error)
      yield found
      continue
    found.sheet.flops_of(model.shape.dtype)
    positions = model.text.model.config.max_position
    for context, batch in itertools.product(sorted(settings.contexts), sorted(settings.batches)):
      if (needed := context + max(*settings.sizes, max(settings.steps) + 1)) > positions:
        found = left_out(
          f"{name} has {positions} positions, and {context} tokens of context with the entries "
          f"behind them need {needed}"
        )
        yield found
        continue
      try:
        cell = measure_cell(name, model, batch, context, settings, progress=progress)
        found = dataclasses.replace(found, cells=(*found.cells, cell))
      except DoesNotFit as error:
        found = without(f"{name} at batch {batch} with {context} tokens of context", error)
      yield found
    del model


def measure_cell(
  name: str,
  model: ProfiledModel,
  batch: int,
  context: int,
  settings: LatencySettings,
  *,
  progress: Progress = lambda _: None,
) -> LatencyCell:
  """Returns the times of a model at one batch size and context (`measure_latency`).

  Raises DoesNotFit for what the memory does not hold.
  """
  check_fits(model.held(batch=batch, tokens=context + max(settings.sizes)), device_memory())
  with refusing_what_does_not_fit():
    profile = measure_latency(
      model.text,
      model.drafter,
      model.drafter_params,
      name=model.draft_name,
      batches=(batch,),
      contexts=(context,),
      sizes=settings.sizes,
      steps=settings.steps,
      seconds=settings.seconds / len(settings.contexts),
      progress=lambda what: progress(f"{name}, {what}"),
      # A fingerprint of all weights is of no use here, and copies them.
      of=dict(device=device_kind(), target=name, drafter=model.draft_name),
    )
  (curve,) = profile.curves
  return LatencyCell(name, model.draft_name, model.shape, model.draft_shape, model.mesh, curve)


def _planned(found: SpeculationPlan) -> dict[str, Any]:
  choice = found.choice
  return dict(
    parent=list(choice.topology.parent),
    drafts=choice.topology.size - 1,
    depth=choice.topology.height,
    expected_tokens=choice.expected_tokens,
    speedup=found.speedup,
  )
