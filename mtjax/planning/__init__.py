"""Measures what plans are made from on this machine, keeps it, and decodes by it.

`mtjax.tuning` computes with profiles and never runs a model; this package runs the models.
`measure_latency` and `measure_acceptance` measure one drafter, `plan_candidates` measures several
together, or finds them in the `PlanStore`, and returns the method that decodes by their plan.
"""

from mtjax.planning.acceptance import measure_acceptance
from mtjax.planning.auto import AutoPlan, plan_candidates
from mtjax.planning.calibration import PlanRequest, calibrate
from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.identity import identity
from mtjax.planning.latency import measure_latency
from mtjax.planning.store import PlanStore
from mtjax.planning.texts import BUNDLED_TEXTS, read_texts

__all__ = [
  "AutoPlan",
  "BUNDLED_TEXTS",
  "PlanCandidate",
  "PlanRequest",
  "PlanStore",
  "calibrate",
  "identity",
  "measure_acceptance",
  "measure_latency",
  "plan_candidates",
  "read_texts",
]
