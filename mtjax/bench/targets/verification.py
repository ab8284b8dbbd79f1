"""Targets for what judging drafts costs on a pretrained model: L(n) at most, with one thread."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

# (weights, entries, L(n) at most).
CEILINGS = (
  ("float32", 8, 1.25),
  ("float32", 16, 1.7),
  ("bfloat16", 8, 1.25),
  ("bfloat16", 16, 1.7),
  ("int8", 8, 1.5),
)


@dataclasses.dataclass(frozen=True)
class CostTarget:
  """One target, the measured cost, and an estimate of what reading and arithmetic allow."""

  weights: str
  entries: int
  maximum: float
  measured: float
  limit: float

  @property
  def verdict(self) -> str:
    return "pass" if self.measured <= self.maximum else "fail"


def cost_targets(rows: Sequence[Mapping[str, Any]]) -> list[CostTarget]:
  """Returns the targets of `CEILINGS` that were measured.

  rows: those of experiments/bench/verification.py. limit: reading and arithmetic, over the measured
  time of a pass of one entry, as in the table of L(n).
  """
  known = {(row["weights"], row["entries"]): row for row in rows if row["threads"] == 1}
  return [
    CostTarget(weights, entries, maximum, row["cost"], row["limit"] / one["seconds"])
    for weights, entries, maximum in CEILINGS
    if (row := known.get((weights, entries))) and (one := known.get((weights, 1)))
  ]
