"""Profiles of all candidates of a plan, measured in turn.

`calibrate` measures them in the one program that decodes with them, and `calibrate_apart`, for jobs
of several processes, each tree in a program of its own.
"""

from mtjax.planning.calibration.apart import calibrate_apart, check_on_devices, sizes_apart
from mtjax.planning.calibration.request import PlanRequest, Progress, new_tokens
from mtjax.planning.calibration.together import calibrate

__all__ = [
  "PlanRequest",
  "Progress",
  "calibrate",
  "calibrate_apart",
  "check_on_devices",
  "new_tokens",
  "sizes_apart",
]
