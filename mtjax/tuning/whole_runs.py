"""How many rounds whole batches take: the slowest row of each ends it."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mtjax.trees import Topology
from mtjax.tuning.shapes.rated import Rates, rate

_SAMPLES = 1 << 16  # of rounds of single rows, over all runs


@dataclasses.dataclass(frozen=True)
class WholeRuns:
  """Simulated runs of a batch, each row of which emits `new_tokens` tokens in rounds.

  A batch ends when its slowest row does, so its rounds are more than the tokens of a row over the
  mean tokens of a round. Every tree meets the same luck (common random numbers), and the seed makes
  all of it repeatable. Raises ValueError for sizes below 1.
  """

  batch: int
  new_tokens: int
  seed: int = 0

  def __post_init__(self):
    if min(self.batch, self.new_tokens) < 1:
      raise ValueError(f"batch and new_tokens must be at least 1: {self.batch}, {self.new_tokens}")

  def rounds(self, topology: Topology, rates: Sequence[Rates]) -> float:
    """Returns the mean rounds of a run with one tree.

    rates: by domain, of which each row of a batch has the next one in turn; the first row of each
    run another one than that of the run before. A tree of the root alone takes `new_tokens` rounds.
    """
    runs, count = len(self._luck), len(rates)
    domain = (np.arange(runs)[:, None] + np.arange(self.batch)) % count
    last = np.zeros(domain.shape, int)
    for number, its in enumerate(rates):
      own = domain == number
      last[own] = self._row_rounds(_reached(topology, its), self._luck[own])
    return float(last.max(axis=1).mean())

  def _row_rounds(
    self, reached: Float[np.ndarray, " H"], luck: Float[np.ndarray, "R N"]
  ) -> Int[np.ndarray, " R"]:
    """Returns the rounds of each row; reached: the probability of each depth, which falls."""
    emitted = 1 + len(reached) - np.searchsorted(reached[::-1], luck, side="right")
    return 1 + np.sum(np.cumsum(emitted, axis=1) < self.new_tokens, axis=1)

  @functools.cached_property
  def _luck(self) -> Float[np.ndarray, "R B N"]:
    """One number from 0 to 1 per run, row and round; a row takes at most one round per token."""
    runs = max(_SAMPLES // (self.batch * self.new_tokens), 16)
    return np.random.default_rng(self.seed).random((runs, self.batch, self.new_tokens))


def _reached(topology: Topology, rates: Rates) -> Float[np.ndarray, " H"]:
  """Returns for each depth of a tree the probability that a draft of it is accepted."""
  reach = np.asarray(rate(topology, rates).reach)
  return np.bincount(topology.depth, weights=reach, minlength=topology.height + 1)[1:]
