"""The best trees under rates of acceptance: three ways, by what a drafter may draft."""

from mtjax.tuning.shapes.any_ranks import AnyRanks, best_of_any_ranks
from mtjax.tuning.shapes.in_order import InOrder, best_in_order
from mtjax.tuning.shapes.prompt_states import (
  AfterNothing,
  PromptStates,
  PromptTree,
  best_prompt_states,
  prompt_states,
)
from mtjax.tuning.shapes.rated import BestTrees, RatedTree, rate

__all__ = [
  "AfterNothing",
  "AnyRanks",
  "BestTrees",
  "InOrder",
  "PromptStates",
  "PromptTree",
  "RatedTree",
  "best_in_order",
  "best_of_any_ranks",
  "best_prompt_states",
  "prompt_states",
  "rate",
]
