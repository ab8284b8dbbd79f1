"""Diffusion over tokens: noise and likelihood, and the rules and loop that decide a canvas."""

from mtjax.diffusion.candidates import CanvasCandidates, sample_candidates
from mtjax.diffusion.plan import BlockPlan, linear_rates
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.protocols import OrderPolicy, ReviseRule, TransferRule
from mtjax.diffusion.view import (
  Revision,
  View,
  apply_revision,
  score_by_model,
  score_filtered,
  suppress_mask,
)

__all__ = [
  "BlockPlan",
  "CanvasCandidates",
  "DecidingPolicy",
  "OrderPolicy",
  "Revision",
  "ReviseRule",
  "TransferRule",
  "View",
  "apply_revision",
  "linear_rates",
  "sample_candidates",
  "score_by_model",
  "score_filtered",
  "suppress_mask",
]
