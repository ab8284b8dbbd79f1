"""How many rounds whole batches take: the slowest row of each ends it."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mtjax.trees import Topology, chain
from mtjax.tuning.shapes.rated import Rates, rate, reached

# The variance of the log-odds of acceptance between texts of one domain, where it is not measured
# (`measured_spread`): a round number within what was measured once, of whole texts of the bundled
# target, least between questions of gsm8k and most between pieces of code.
SPREAD = 0.2
_PRIOR_TEXTS = 8  # that this value counts as
_LARGEST = 4.0  # log-odds that differ more than this say that drafts are right always or never
_HALVINGS = 12
_SAMPLES = 1 << 16  # of rounds of single rows, over all runs
_KINDS = 9  # of texts within a domain
_TINY = 1e-9


@dataclasses.dataclass(frozen=True)
class WholeRuns:
  """Simulated runs of a batch, each row of which emits `new_tokens` tokens in rounds.

  A batch ends when its slowest row does, so its rounds are more than the tokens of a row over the
  mean tokens of a round. Rows are texts of their own: prompt lookup has much to copy in one text of
  code and nothing in another. The log-odds of acceptance of a text differ from those of its domain
  by one number, the same at all depths. These numbers are normally distributed with the variance
  `spread`, and with the mean with which texts take as many rounds on average as the domain's rates
  say, because those are of all rounds of its texts together.

  Every tree meets the same luck (common random numbers), and the seed makes all of it repeatable.
  Raises ValueError for sizes below 1 and a spread below 0.
  """

  batch: int
  new_tokens: int
  seed: int = 0
  spread: float = SPREAD

  def __post_init__(self):
    if min(self.batch, self.new_tokens) < 1:
      raise ValueError(f"batch and new_tokens must be at least 1: {self.batch}, {self.new_tokens}")
    if self.spread < 0:
      raise ValueError(f"the spread of log-odds is a variance, got {self.spread}")

  def rounds(self, topology: Topology, rates: Sequence[Rates]) -> float:
    """Returns the mean rounds of a run with one tree.

    rates: by domain, of which each row of a batch has the next one in turn; the first row of each
    run another one than that of the run before. A tree of the root alone takes `new_tokens` rounds,
    and no tree takes more.
    """
    runs, count = len(self._luck), len(rates)
    domain = (np.arange(runs)[:, None] + np.arange(self.batch)) % count
    last = np.zeros(domain.shape)
    for number, its in enumerate(rates):
      for place, one in enumerate(self._by_kind(topology, its)):
        own = (domain == number) & (self._kind == place)
        last[own] = self._row_rounds(one, self._luck[own])
    return float(last.max(axis=1).mean())

  def variance(self, topology: Topology, rates: Rates) -> float:
    """Returns the variance of the rounds of single rows with one tree, of texts of one domain."""
    rows = [
      self._row_rounds(one, self._luck[self._kind == place])
      for place, one in enumerate(self._by_kind(topology, rates))
    ]
    return float(np.concatenate(rows).var())

  def _by_kind(self, topology: Topology, rates: Rates) -> Float[np.ndarray, "G H"]:
    """Returns for each kind of text the probability that a round gets to each depth."""
    wanted = 1 / rate(topology, rates).expected_tokens  # rounds per token
    shifts = math.sqrt(self.spread) * _normal(_KINDS)
    low, high = -2 * _LARGEST, 2 * _LARGEST
    for _ in range(_HALVINGS if self.spread else 0):
      middle = (low + high) / 2
      each = _by_depth(topology, shifted(rates, middle + shifts))
      slow = np.mean(1 / (1 + each.sum(axis=1))) > wanted
      low, high = (middle, high) if slow else (low, middle)
    # Without a spread both ends are equally far from no shift at all.
    middle = (low + high) / 2
    return _by_depth(topology, shifted(rates, middle + shifts))

  def _row_rounds(
    self, reached: Float[np.ndarray, " H"], luck: Float[np.ndarray, "R N"]
  ) -> Int[np.ndarray, " R"]:
    """Returns the rounds of each row; reached: the probability of each depth, which falls."""
    emitted = 1 + len(reached) - np.searchsorted(reached[::-1], luck, side="right")
    return 1 + np.sum(np.cumsum(emitted, axis=1) < self.new_tokens, axis=1)

  @functools.cached_property
  def _luck(self) -> Float[np.ndarray, "R B N"]:
    """Random numbers from 0 to 1: one for each run, row and round.

    Every round emits at least one token per row, so a row never has more rounds than tokens.
    """
    runs = max(_SAMPLES // (self.batch * self.new_tokens), 16)
    return np.random.default_rng(self.seed).random((runs, self.batch, self.new_tokens))

  @functools.cached_property
  def _kind(self) -> Int[np.ndarray, "R B"]:
    """The number of the kind of text that each row is; all kinds are equally frequent."""
    shape = self._luck.shape[:2]
    kinds = np.resize(np.arange(_KINDS), shape)
    return np.random.default_rng((self.seed, 1)).permuted(kinds.ravel()).reshape(shape)


def measured_spread(
  rounds: Sequence[Sequence[int]],
  rates: Sequence[Rates],
  new_tokens: int,
  *,
  different: Sequence[int] | None = None,
) -> float:
  """Returns the variance of the log-odds of acceptance between texts of one domain.

  It is the `spread` with which the rounds of simulated texts have the variance of those that were
  counted, within a domain, on average over the domains (method of moments), and at most 4. The
  fewer texts there are beside the first one of each domain, the more it is drawn to SPREAD, which
  counts as 8 texts.

  rounds: of each text, by domain, each of `new_tokens` tokens. rates: of each domain, whose drafts
  are one chain, or count by depth alone. different: how many prompts the texts of each domain come
  from; None: each has its own. A domain with a single one says nothing.
  """
  prompts = [len(its) for its in rounds] if different is None else different
  known = [
    (its, own, min(count, len(its)))
    for its, own, count in zip(rounds, rates, prompts, strict=True)
    if min(count, len(its)) > 1
  ]
  if not known:
    return SPREAD
  counted = statistics.fmean(statistics.variance(its) for its, _, _ in known)

  def simulated(spread: float) -> float:
    runs = WholeRuns(1, new_tokens, spread=spread)
    return statistics.fmean(runs.variance(chain(len(own)), own) for _, own, _ in known)

  low, high = 0.0, _LARGEST
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    low, high = (middle, high) if simulated(middle) < counted else (low, middle)
  texts = sum(count - 1 for _, _, count in known)
  return (texts * (low + high) / 2 + _PRIOR_TEXTS * SPREAD) / (texts + _PRIOR_TEXTS)


def shifted(rates: Rates, shift: Float[np.ndarray, " G"]) -> Float[np.ndarray, "G H K"]:
  """Returns tables of rates whose log-odds that any child is accepted are higher by each shift.

  They are so at all depths. The shares of the ranks stay what they are.
  """
  total = rates.sum(axis=1, keepdims=True)
  any_child = np.clip(total, _TINY, 1 - _TINY)
  odds = any_child / (1 - any_child) * np.exp(shift)[:, None, None]
  return rates / np.maximum(total, _TINY) * odds / (1 + odds)


def _normal(count: int) -> Float[np.ndarray, " N"]:
  """Returns numbers as frequent as each other, with the mean 0 and variance 1 of a normal law."""
  law = statistics.NormalDist()
  middles = np.array([law.inv_cdf((place + 0.5) / count) for place in range(count)])
  return middles / np.sqrt(np.mean(middles**2))


def _by_depth(topology: Topology, rates: Float[np.ndarray, "G H K"]) -> Float[np.ndarray, "G D"]:
  """Returns for each table of rates and each depth of a tree the probability to get there."""
  at_depth = np.arange(1, topology.height + 1)[:, None] == np.array(topology.depth)
  return (at_depth @ np.stack(reached(topology, rates))).T
