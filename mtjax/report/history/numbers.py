"""What a recorded run comes to: tokens per forward pass, acceptance by depth, time by stage."""

import dataclasses
import statistics
from collections.abc import Sequence

from mtjax.report.history.run_json import RecordedRun
from mtjax.rounds.history import RoundRecord, TreeRecord


@dataclasses.dataclass(frozen=True)
class Depth:
  """The drafts of one depth: the rounds whose tree was so deep, and those that accepted so many."""

  depth: int
  drafted: int
  accepted: int


@dataclasses.dataclass(frozen=True)
class StageTime:
  """The time of a stage over all rounds, and its median over those that had it."""

  name: str
  seconds: float
  median: float


@dataclasses.dataclass(frozen=True)
class Totals:
  """Counts of one row. The prefill is a forward pass too: it emits the first token."""

  tokens: int
  forwards: int
  drafted: int
  accepted: int

  @property
  def tokens_per_forward(self) -> float:
    return self.tokens / max(self.forwards, 1)


def trees_of(run: RecordedRun, row: int) -> list[TreeRecord | None]:
  """Returns the tree of every round; None for those after the row's end, and for a fill."""
  trees = [record.rows[row] for record in run.history]
  return [tree if isinstance(tree, TreeRecord) else None for tree in trees]


def totals(run: RecordedRun, row: int) -> Totals:
  """Returns the counts of one row of a decode."""
  trees = [tree for tree in trees_of(run, row) if tree is not None]
  return Totals(
    tokens=sum(len(tree.emitted) for tree in trees),
    forwards=len(trees),
    drafted=sum(len(tree.tokens) - 1 for tree in trees),
    accepted=sum(len(tree.path) - 1 for tree in trees),
  )


def acceptance_by_depth(trees: Sequence[TreeRecord | None]) -> list[Depth]:
  """Returns the acceptance of depth 1, 2, ... to the depth of the deepest tree."""
  heights = [(_height(tree), len(tree.path) - 1) for tree in trees if tree is not None]
  return [
    Depth(
      depth, sum(high >= depth for high, _ in heights), sum(took >= depth for _, took in heights)
    )
    for depth in range(1, max((high for high, _ in heights), default=0) + 1)
  ]


def time_by_stage(history: Sequence[RoundRecord]) -> list[StageTime]:
  """Returns the time of each stage, in the order in which they first ran."""
  times: dict[str, list[float]] = {}
  for record in history:
    for name, seconds in record.seconds.items():
      times.setdefault(name, []).append(seconds)
  return [StageTime(name, sum(all_), statistics.median(all_)) for name, all_ in times.items()]


def _height(tree: TreeRecord) -> int:
  depths = [0]
  for parent in tree.parents[1:]:
    depths.append(depths[parent] + 1)
  return max(depths)
