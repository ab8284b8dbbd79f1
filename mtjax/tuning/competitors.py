"""What competes for a plan: drafters with their rates of acceptance and their times."""

import dataclasses
import enum

import numpy as np

from mtjax.trees import Topology
from mtjax.tuning.profiles.latency import LatencyCurve
from mtjax.tuning.shapes.any_ranks import best_of_any_ranks
from mtjax.tuning.shapes.in_order import best_in_order
from mtjax.tuning.shapes.rated import BestTrees, Rates, check_rates
from mtjax.types import DraftScheme


class Siblings(enum.Enum):
  """Which children of a node a drafter can draft, which decides how its best trees are found."""

  ANY_RANKS = "any ranks"  # chosen by a rule: rank 2 may be drafted without rank 1
  IN_ORDER = "in order"  # sampled one after the other
  ONE = "one"  # chains only

  @classmethod
  def of_scheme(cls, scheme: DraftScheme) -> "Siblings":
    """Returns what drafts of a scheme allow."""
    return cls.ANY_RANKS if scheme is DraftScheme.DELTA else cls.IN_ORDER


class RoundKind(enum.Enum):
  """The kind of a way to decode."""

  PLAIN = "plain decoding"
  CHAIN = "chain"
  TREE = "tree"


@dataclasses.dataclass(frozen=True)
class Competitor:
  """A drafter that may be planned with, at one batch size and one length of context.

  rates [H, K]: `mtjax.tuning.shapes.rate` says what they mean; a profile's `rates` or
  `falling_rates`. latency: the target's times together with this drafter's. Raises ValueError for
  rates that are none.
  """

  drafter: str
  rates: Rates
  latency: LatencyCurve
  siblings: Siblings = Siblings.ANY_RANKS

  def __post_init__(self):
    check_rates(self.rates)

  @property
  def max_height(self) -> int:
    """The largest depth for which there are both rates and times."""
    return min(self.rates.shape[0], self.latency.max_steps)

  def chains(self) -> Rates:
    """Returns the rates of the best child alone, [H, 1]: of rank 0 where siblings are in order."""
    if self.siblings is Siblings.ANY_RANKS:
      return self.rates.max(axis=1, keepdims=True)
    return self.rates[:, :1]

  def chain(self, height: int) -> Topology:
    """Returns the chain of the best child at each depth."""
    if self.siblings is Siblings.ANY_RANKS:
      ranks = np.argmax(self.rates[:height], axis=1)
    else:
      ranks = np.zeros(height, int)
    return Topology(tuple(range(-1, height)), (0, *map(int, ranks)))

  def trees(self, max_nodes: int, height: int) -> BestTrees:
    """Returns the best trees of up to `max_nodes` nodes and of a height."""
    build = best_in_order if self.siblings is Siblings.IN_ORDER else best_of_any_ranks
    return build(self.rates, max_nodes, height=height)
