"""The planner: which drafter, which tree, and whether to draft at all."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mtjax.trees import Topology, chain
from mtjax.tuning.competitors import Competitor, RoundKind, Siblings
from mtjax.tuning.shapes.rated import rate


@dataclasses.dataclass(frozen=True)
class PlannedRound:
  """One way to decode a batch, and what is expected of it.

  Figures are of a round while all rows are being decoded, or of whole runs
  (`FirstPlanner.whole_run`): the tokens of a row over the rounds of its batch, which ends with its
  slowest row, and seconds with a share of what comes before the first round.
  """

  kind: RoundKind
  drafter: str | None  # None: plain decoding
  topology: Topology  # of every row's tree; the root alone for plain decoding
  entries: (
    int  # per row in the target's pass: the size of the compiled program, at least the tree's
  )
  steps: int  # of drafting
  batch: int
  expected_tokens: float  # per row and round of the batch
  seconds: float  # per round

  @property
  def tokens_per_second(self) -> float:
    """Expected tokens per second of the whole batch.

    Rows that accept more end sooner and wait for the others, which plain rows of one length do not:
    a batch of several rows takes longer than figures of single rounds say.
    """
    return self.batch * self.expected_tokens / self.seconds

  def __str__(self) -> str:
    if self.kind is RoundKind.PLAIN:
      shape = "plain decoding"
    else:
      shape = f"{self.drafter}, a {self.kind.value} of {self.topology.size - 1} drafts, "
      shape += f"depth {self.topology.height}"
    return (
      f"{shape}: {self.expected_tokens:.3f} tokens per round and row, {1e3 * self.seconds:.3f} ms "
      f"per round, {self.tokens_per_second:.1f} tokens per second"
    )


@dataclasses.dataclass(frozen=True)
class SpeculationPlan:
  """What to do, and what was considered."""

  choice: PlannedRound
  plain: PlannedRound
  # Plain decoding, and the best of each drafter and kind, or all rounds of a menu: from the fastest
  # to the slowest.
  ranking: tuple[PlannedRound, ...]

  @property
  def speedup(self) -> float:
    """The predicted speed over that of plain decoding."""
    return self.choice.tokens_per_second / self.plain.tokens_per_second

  @property
  def runner_up(self) -> PlannedRound | None:
    """The best of the other drafters and kinds; None if nothing else competed."""
    own = self.choice.drafter, self.choice.kind
    return next((one for one in self.ranking if (one.drafter, one.kind) != own), None)

  def why(self) -> str:
    """Returns the reason in sentences: the choice, its speed-up and the runner-up."""
    lines = [
      f"At batch {self.choice.batch} the plan is {self.choice}.",
      f"Its predicted speed is {self.speedup:.3f} times that of plain decoding, which takes "
      f"{1e3 * self.plain.seconds:.3f} ms per round.",
    ]
    if (second := self.runner_up) is not None:
      ratio = self.choice.tokens_per_second / second.tokens_per_second
      lines.append(f"It is predicted to be {ratio:.3f} times as fast as the runner-up: {second}.")
    return "\n".join(lines)


def plan(
  competitors: Sequence[Competitor],
  *,
  sizes: Sequence[int] | None = None,
  min_gain: float = 0.0,
) -> SpeculationPlan:
  """Returns the way to decode with the most expected tokens per second.

  A round yields F tokens per row and takes fixed + verify(n) + draft(d) seconds; the plan is the
  maximum of batch * F(n, d) / seconds(n, d) over all drafters, n and d, where F(n, d) is that of
  the best tree of n nodes and depth d (Sequoia 2402.12374, section 3.3; PPD 2405.18628). Chains
  compete with trees, and both with plain decoding. At batch 1 this is the least time per token, at
  larger batches the largest throughput.

  competitors: at one batch size; none at all cannot be compared. sizes: the numbers of nodes for
  which there are compiled programs: a smaller tree pays for the next one. None: every number.
  min_gain: speculation is chosen if it is predicted to be more than 1 + min_gain times as fast as
  plain decoding. Raises ValueError for no competitor, for competitors of different batch sizes, for
  two of one name, and for sizes whose times are not known.
  """
  plain = plain_round(competitors)
  best: dict[tuple[str, RoundKind], PlannedRound] = {}
  for competitor in competitors:
    for choice in planned_rounds(competitor, sizes=sizes):
      key = competitor.drafter, choice.kind
      if key not in best or _better(choice, best[key]):
        best[key] = choice
  ranking = sorted([plain, *best.values()], key=lambda one: -one.tokens_per_second)
  chosen = ranking[0]
  if chosen.tokens_per_second <= (1 + min_gain) * plain.tokens_per_second:
    chosen = plain
  return SpeculationPlan(chosen, plain, tuple(ranking))


def plain_round(competitors: Sequence[Competitor]) -> PlannedRound:
  """Returns plain decoding, at the least of the times that the competitors know for it.

  Raises ValueError for competitors that cannot be compared, as `plan` does.
  """
  if not competitors:
    raise ValueError("there is nothing to plan with: give at least one competitor")
  batches = {one.latency.batch for one in competitors}
  if len(batches) > 1:
    raise ValueError(f"competitors must be of one batch size, got {sorted(batches)}")
  names = [one.drafter for one in competitors]
  if len(set(names)) < len(names):
    raise ValueError(f"every competitor needs a name of its own, got {names}")
  seconds = min(one.latency.plain for one in competitors)
  return PlannedRound(RoundKind.PLAIN, None, chain(0), 1, 0, batches.pop(), 1.0, seconds)


def planned_rounds(
  competitor: Competitor, *, sizes: Sequence[int] | None = None
) -> Iterator[PlannedRound]:
  """Yields for each depth the best chain, and the best tree over all sizes, of a competitor."""
  latency, allowed = competitor.latency, _sizes(competitor, sizes)
  value = 1.0 + np.cumsum(np.cumprod(competitor.chains()[:, 0]))
  # A tree is compared at every size at once.
  entries = np.array(allowed)
  for height in range(1, competitor.max_height + 1):
    length = min((size for size in allowed if size > height), default=None)
    if length is not None:
      seconds = float(latency.round_seconds(length, height))
      yield _choice(
        competitor,
        RoundKind.CHAIN,
        competitor.chain(height),
        length,
        height,
        seconds,
        value[height - 1],
      )
    if competitor.siblings is Siblings.ONE or competitor.rates.shape[1] == 1:
      continue
    trees = competitor.trees(int(entries[-1]), height)
    seconds = latency.round_seconds(entries, height)
    place = int(np.argmax(trees.expected[entries] / seconds))
    topology = trees.tree(int(entries[place]))
    if not topology.is_chain:
      expected = trees.expected[entries[place]]
      yield _choice(
        competitor,
        RoundKind.TREE,
        topology,
        allowed[place],
        height,
        float(seconds[place]),
        expected,
      )


def expected_of(competitor: Competitor, choice: PlannedRound) -> PlannedRound:
  """Returns a choice with the tokens and seconds that its drafter, the competitor, now expects."""
  return dataclasses.replace(
    choice,
    expected_tokens=rate(choice.topology, competitor.rates).expected_tokens,
    seconds=float(competitor.latency.round_seconds(choice.entries, choice.steps)),
    batch=competitor.latency.batch,
  )


def _sizes(competitor: Competitor, sizes: Sequence[int] | None) -> list[int]:
  limit = competitor.latency.max_entries
  if sizes is None:
    return list(range(1, limit + 1))
  if not sizes or min(sizes) < 1 or max(sizes) > limit:
    raise ValueError(
      f"sizes must be 1 to {limit} entries, whose times are known for {competitor.drafter!r}: got "
      f"{sorted(sizes)}"
    )
  return sorted(set(sizes))


def _choice(competitor, kind, topology, entries, steps, seconds, expected) -> PlannedRound:
  return PlannedRound(
    kind, competitor.drafter, topology, entries, steps, competitor.latency.batch, float(expected),
    seconds,
  )  # fmt: skip


def _better(one: PlannedRound, other: PlannedRound) -> bool:
  """Of equal speeds the smaller tree wins."""
  speeds = one.tokens_per_second, other.tokens_per_second
  return speeds[0] > speeds[1] * (1 + 1e-12)
