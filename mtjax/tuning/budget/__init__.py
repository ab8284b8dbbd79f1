"""Budgets of entries that rows share, and the confidences that they go by."""

from mtjax.tuning.budget.admission import admit, admit_budget, survival
from mtjax.tuning.budget.calibration import (
  calibrated_survival,
  calibration_error,
  fit_temperatures,
)
from mtjax.tuning.budget.stale import StaleBudget

__all__ = [
  "StaleBudget",
  "admit",
  "admit_budget",
  "calibrated_survival",
  "calibration_error",
  "fit_temperatures",
  "survival",
]
