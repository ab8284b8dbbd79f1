"""Plans for speculation: which tree on which machine, from what was measured or predicted.

`profiles` hold what was measured, `roofline` predicts the times of hardware that is not at hand,
`shapes` finds the best trees, `plan` compares drafters, trees and plain decoding, `budget` shares a
batch's entries without a change of the distribution, and `online` plans anew while a program runs.
"""

from mtjax.tuning.competitors import Competitor, RoundKind, Siblings
from mtjax.tuning.plan import PlannedRound, SpeculationPlan, plan

__all__ = ["PlannedRound", "Competitor", "RoundKind", "Siblings", "SpeculationPlan", "plan"]
