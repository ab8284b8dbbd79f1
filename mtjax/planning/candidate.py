"""A drafter that may be planned with."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from mtjax.decode.planned import Arm, Planned
from mtjax.decode.planned.watching import DraftsOfText
from mtjax.decode.speculative import Speculative
from mtjax.draft import Drafter
from mtjax.planning.text_rounds import store_rounds, text_rounds
from mtjax.trees import Topology, chain, k_ary
from mtjax.tuning import Siblings
from mtjax.tuning.profiles import AcceptanceCounts
from mtjax.verify import Exactness, get_verifier

Tokens = Sequence[Sequence[int]]  # of each row
# From prompts and their outputs to the counts of each text.
CountRounds = Callable[[Tokens, Tokens], list[AcceptanceCounts]]


@dataclasses.dataclass(frozen=True)
class PlanCandidate:
  """An arm of `mtjax.decode.planned` with its parameters.

  label: its name with all settings that change acceptance or times, as profiles have it.
  calibration: returns the parameters to decode one calibration text with, and what must live as
  long: of a store on the host another one, empty or with what the user's file holds. So the user's
  own does not learn these texts, and a text that is decoded again is new to it. None: `params`.
  alone: returns the drafter of trees of one shape in a program of its own, which takes the same
  params and accepts the same drafts; None: that of the arm, with the arm's only size.
  """

  arm: Arm
  params: PyTree
  label: str
  calibration: Callable[[], tuple[PyTree, Any]] | None = None
  alone: Callable[[Topology], Drafter] | None = None

  def speculative(self, shape: Topology) -> Speculative:
    """Returns the method of rounds of this drafter with one shape in a program of its own."""
    method = self.arm.method
    return method if self.alone is None else Speculative(self.alone(shape), method.verifier)

  @property
  def name(self) -> str:
    return self.arm.name

  @property
  def whole(self) -> bool:
    """True if the drafter chooses its drafts alone."""
    return self.arm.shaped is None

  @property
  def on_host(self) -> bool:
    """True if its drafts come from a store on the host."""
    return self.calibration is not None

  @property
  def siblings(self) -> Siblings:
    """Which trees are planned: in order of the siblings, as rows that sample need them."""
    return Siblings.ONE if self.arm.breadth == 1 else Siblings.IN_ORDER

  def trials(self, size: int) -> list[Topology]:
    """Returns the trees that tell the times and rates of a size: a deep, a wide, a mixed one."""
    height, breadth = min(self.arm.height, size - 1), self.arm.breadth
    deep = chain(height)
    if self.whole:
      return [deep]
    shapes = [deep] + ([chain(1)] if size == max(self.arm.sizes) and height > 1 else [])
    if breadth > 1:
      shapes += [k_ary((min(breadth, size - 1),)), _mixed(size, breadth, height)]
    return list(dict.fromkeys(shapes))

  @property
  def shapes(self) -> list[Topology]:
    """The trees that all sizes are tried with, each once."""
    trials = map(self.trials, self.arm.sizes)
    return list(dict.fromkeys(itertools.chain.from_iterable(trials)))


def program_of(candidates: Sequence[PlanCandidate], batch: int) -> Planned:
  """Returns the program of all candidates, for batches of up to so many rows."""
  return Planned(tuple(one.arm for one in candidates), batch, watch=watched(candidates))


def watched(candidates: Sequence[PlanCandidate]) -> str | None:
  """Returns the candidate that is compared with the text of plain rounds; None if none can be.

  It is the one with the longest chain of those that have `drafts_of_text`.
  """
  lengths = {one.name: one.arm.height for one in candidates if drafts_of_text(one) is not None}
  return max(lengths, key=lambda name: lengths[name], default=None)


def drafts_of_text(candidate: PlanCandidate) -> DraftsOfText | None:
  """Returns the drafter, if a text says by itself what would be accepted in it; None otherwise.

  Its drafts follow from the text alone, and its verifier accepts a draft as often as it is the
  token of plain decoding: lossless ones do.
  """
  return candidate.arm.of_text if _accepts_text(candidate) else None


def counter_of_text(candidate: PlanCandidate) -> CountRounds | None:
  """Returns a function that counts the rounds in texts, however they were decoded; None without.

  A store's drafts follow from the texts of the batch alone too, and each batch begins with the
  store that it is calibrated with.
  """
  if (drafter := drafts_of_text(candidate)) is not None:
    return functools.partial(text_rounds, drafter)
  calibration = candidate.calibration
  if calibration is None or not _accepts_text(candidate):
    return None

  def count(prompts, outputs):
    _, store = calibration()
    return store_rounds(store, max(candidate.arm.sizes), candidate.arm.height, prompts, outputs)

  return count


def _accepts_text(candidate: PlanCandidate) -> bool:
  exactness = get_verifier(candidate.arm.method.verifier).exactness
  return exactness is not Exactness.APPROXIMATE


def _mixed(size: int, breadth: int, height: int) -> Topology:
  """Returns a tree of `size` nodes in which the first children have the most descendants."""
  parent, rank, depth = [-1], [0], [0]
  children = np.zeros(size, int)
  while len(parent) < size:
    # The node that is the nearest to the root, by depth and place, and may have another child.
    cost = [
      depth[node] + 2 * children[node] if depth[node] < height and children[node] < breadth else 99
      for node in range(len(parent))
    ]
    node = int(np.argmin(cost))
    if cost[node] == 99:
      break
    parent.append(node)
    rank.append(int(children[node]))
    depth.append(depth[node] + 1)
    children[node] += 1
  return Topology(tuple(parent), tuple(rank))
