"""A roofline of decoding: times of hardware that is not at hand, from bytes and operations."""

from mtjax.tuning.roofline.curve import predict_curve
from mtjax.tuning.roofline.fit import MeasuredStep, RooflineFit, fit_hardware, roofline_errors
from mtjax.tuning.roofline.hardware import HARDWARE, Hardware, get_hardware, nearest_hardware
from mtjax.tuning.roofline.machines import Machine, parse_machine
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.published import PUBLISHED, published_shape
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
  "Machine",
  "MeasuredStep",
  "MeshSize",
  "ModelShape",
  "PUBLISHED",
  "RooflineFit",
  "StepCost",
  "StepWork",
  "fit_hardware",
  "free_entries",
  "get_hardware",
  "nearest_hardware",
  "parse_machine",
  "predict_curve",
  "published_shape",
  "roofline_errors",
  "step_cost",
  "step_work",
]
