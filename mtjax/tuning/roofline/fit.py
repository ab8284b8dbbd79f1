"""The parameters of a roofline from measured passes, and its error where both exist."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtjax.tuning.roofline.hardware import Hardware
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.step import MeshSize, StepWork, step_work

# A pull towards the parameters that the fit began with, in units of relative error: it decides only
# what the points leave open.
_PULL = 1e-3
_FIELDS = ("flops", "bandwidth", "start", "link", "link_start")


@dataclasses.dataclass(frozen=True)
class MeasuredStep:
  """The measured time of one forward pass."""

  shape: ModelShape
  batch: int
  entries: int
  context: int
  seconds: float
  mesh: MeshSize = MeshSize()


@dataclasses.dataclass(frozen=True)
class RooflineFit:
  """Hardware with fitted parameters, and how far it is from the points."""

  hardware: Hardware
  errors: tuple[float, ...]  # of each point: predicted / measured - 1
  # Parameters that the points say something about; the others are as they were before.
  determined: tuple[str, ...]

  @property
  def median(self) -> float:
    """The median of the errors, without sign."""
    return float(np.median(np.abs(self.errors)))

  @property
  def worst(self) -> float:
    """The largest of the errors, without sign."""
    return float(np.max(np.abs(self.errors)))


def roofline_errors(hardware: Hardware, points: Sequence[MeasuredStep]) -> Float[np.ndarray, " M"]:
  """Returns predicted / measured - 1 of each point."""
  return _Points.of(points).seconds(hardware) / [one.seconds for one in points] - 1


def fit_hardware(hardware: Hardware, points: Sequence[MeasuredStep]) -> RooflineFit:
  """Returns the hardware whose roofline has the least squared relative errors (of logarithms).

  Fitted are the speeds of arithmetic (all types by one factor), of memory and of links, and the
  fixed costs of a pass and of a collective. `start_per_layer` moves with `start`, by one factor.
  What the points do not tell, such as the speed of links on one device, stays as in `hardware`.
  Raises ValueError for no point and for seconds that are not above 0.
  """
  from scipy.optimize import least_squares

  if not points or not all(0 < one.seconds < np.inf for one in points):
    raise ValueError("a fit needs measured points, each with seconds above 0")
  measured, work = np.log([one.seconds for one in points]), _Points.of(points)

  def residuals(factors):
    predicted = np.log(work.seconds(_scaled(hardware, factors)))
    return np.concatenate([predicted - measured, _PULL * factors])

  # The roofline has kinks: several beginnings find the side on which the best fit lies.
  rough = float(np.clip(np.median(residuals(np.zeros(len(_FIELDS)))[: len(points)]), -6, 6))
  begins = [(0, 0), (-rough, -rough), (-rough, 0), (0, -rough), (-1, -0.5)]
  fits = [
    least_squares(residuals, np.array([a, b, 0, 0, 0], float), loss="soft_l1", f_scale=0.1)
    for a, b in begins
  ]
  best = min(fits, key=lambda one: one.cost)
  told = np.abs(best.jac[: len(points)]).max(axis=0) > 10 * _PULL
  found = _scaled(hardware, np.where(told, best.x, 0.0))
  return RooflineFit(
    found,
    tuple(roofline_errors(found, points).tolist()),
    tuple(name for name, is_told in zip(_FIELDS, told, strict=True) if is_told),
  )


@dataclasses.dataclass(frozen=True)
class _Points:
  """The work of all points at once."""

  work: StepWork
  dtypes: tuple[str, ...]

  @classmethod
  def of(cls, points):
    each = [
      step_work(one.shape, batch=one.batch, entries=one.entries, context=one.context, mesh=one.mesh)
      for one in points
    ]
    names = [field.name for field in dataclasses.fields(StepWork)]
    work = StepWork(**{name: np.array([getattr(one, name) for one in each]) for name in names})
    return cls(work, tuple(one.shape.dtype for one in points))

  def seconds(self, hardware):
    flops = {dtype: hardware.flops_of(dtype) for dtype in set(self.dtypes)}
    return self.work.cost(hardware, np.array([flops[dtype] for dtype in self.dtypes])).seconds


def _scaled(hardware: Hardware, factors: Float[np.ndarray, " F"]) -> Hardware:
  flops, bandwidth, start, link, link_start = np.exp(np.clip(factors, -30, 30)).tolist()
  return dataclasses.replace(
    hardware,
    flops={name: speed * flops for name, speed in hardware.flops.items()},
    bandwidth=hardware.bandwidth * bandwidth,
    start=hardware.start * start,
    start_per_layer=hardware.start_per_layer * start,
    link=hardware.link * link,
    link_start=hardware.link_start * link_start,
  )
