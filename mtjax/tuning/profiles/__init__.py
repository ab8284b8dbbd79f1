"""What a plan is made from: how often drafts are accepted, and how long rounds take."""

from mtjax.tuning.profiles.acceptance import AcceptanceProfile
from mtjax.tuning.profiles.counts import (
  AcceptanceCounts,
  count_history,
  count_paths,
  count_ranks,
)
from mtjax.tuning.profiles.intervals import wilson_interval
from mtjax.tuning.profiles.latency import LatencyCurve, LatencyProfile, fit_curve
from mtjax.tuning.profiles.monotone import MonotoneFit, fit_monotone

__all__ = [
  "AcceptanceCounts",
  "AcceptanceProfile",
  "LatencyCurve",
  "LatencyProfile",
  "MonotoneFit",
  "count_history",
  "count_paths",
  "count_ranks",
  "fit_curve",
  "fit_monotone",
  "wilson_interval",
]
