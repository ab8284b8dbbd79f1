"""Latency curves of hardware that is not at hand."""

from mtjax.tuning.profiles.latency import LatencyCurve
from mtjax.tuning.profiles.monotone import MonotoneFit
from mtjax.tuning.roofline.hardware import Hardware
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.step import MeshSize, step_cost


def predict_curve(
  hardware: Hardware,
  target: ModelShape,
  draft: ModelShape | float,
  *,
  batch: int,
  context: int,
  mesh: MeshSize = MeshSize(),
  max_entries: int = 256,
  max_steps: int = 16,
  draft_entries: int = 1,
  fixed: float | None = None,
) -> LatencyCurve:
  """Returns the latency curve that the roofline predicts, for any number of entries and steps.

  draft: a draft model of which a step is a pass over `draft_entries` entries per row, on the same
  mesh; or the seconds of a step. fixed: seconds that a speculative round costs beside its passes;
  None: the start of one more program. Raises ValueError where `step_cost` does.
  """

  def seconds(shape: ModelShape, entries: int) -> float:
    cost = step_cost(hardware, shape, batch=batch, entries=entries, context=context, mesh=mesh)
    return float(cost.seconds)

  amounts = tuple(range(1, max_entries + 1))
  verify = tuple(seconds(target, n) for n in amounts)
  if isinstance(draft, ModelShape):
    step = seconds(draft, draft_entries)
  else:
    step = float(draft)
  if not step > 0:
    raise ValueError(f"a step of drafting takes more than 0 seconds, got {step}")
  steps = tuple(range(1, max_steps + 1))
  drafted = tuple(step * count for count in steps)
  return LatencyCurve(
    batch,
    context,
    MonotoneFit(amounts, verify, verify),
    MonotoneFit(steps, drafted, drafted),
    hardware.start if fixed is None else fixed,
    verify[0],
  )
