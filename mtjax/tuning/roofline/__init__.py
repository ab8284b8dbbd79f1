"""A roofline of decoding: times of hardware that is not at hand, from bytes and operations."""

from mtjax.tuning.roofline.curve import predict_curve
from mtjax.tuning.roofline.fit import MeasuredStep, RooflineFit, fit_hardware, roofline_errors
from mtjax.tuning.roofline.hardware import HARDWARE, Hardware, get_hardware
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.step import (
  MeshSize,
  StepCost,
  StepWork,
  free_entries,
  step_cost,
  step_work,
)

__all__ = [
  "HARDWARE",
  "Hardware",
  "MeasuredStep",
  "MeshSize",
  "ModelShape",
  "RooflineFit",
  "StepCost",
  "StepWork",
  "fit_hardware",
  "free_entries",
  "get_hardware",
  "predict_curve",
  "roofline_errors",
  "step_cost",
  "step_work",
]
