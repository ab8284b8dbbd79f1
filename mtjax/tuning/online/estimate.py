"""What recent rounds say about acceptance: the domain of the text, and rates as they were seen."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from mtjax.tuning.profiles.acceptance import AcceptanceProfile
from mtjax.tuning.profiles.counts import AcceptanceCounts
from mtjax.tuning.shapes.rated import Rates

_TRIALS = 10.0  # that are added to each domain, at the rates of all domains together


@dataclasses.dataclass(frozen=True)
class Prior:
  """The rates of every drafter in every domain, from their profiles."""

  domains: tuple[str, ...]
  rates: Mapping[str, Float[np.ndarray, "N H K"]]  # by drafter; N domains
  mean: Mapping[str, Float[np.ndarray, "H K"]]  # of all domains together

  @classmethod
  def of(cls, profiles: Mapping[str, AcceptanceProfile]) -> "Prior":
    """Returns the prior of profiles by drafter.

    A short calibration leaves some depths and ranks of a domain with few trials or none. So each
    domain counts as if it had seen `_TRIALS` trials more, at the rates of all domains together.
    Ranks that were tried in different rounds, as those of trees of several breadths are, can add up
    to more than one child per node: the rates of such a depth are scaled to 1. Raises ValueError
    unless all profiles have the same domains.
    """
    names = {drafter: sorted(profile.domains) for drafter, profile in profiles.items()}
    if len({tuple(domains) for domains in names.values()}) != 1:
      raise ValueError(f"the profiles must be of the same domains, got {names}")
    domains = tuple(next(iter(names.values())))
    widened = {drafter: _widened(profile) for drafter, profile in profiles.items()}
    rates = {
      drafter: np.stack([_one_child(_shrunk(profile, domain)) for domain in domains])
      for drafter, profile in widened.items()
    }
    mean = {drafter: _one_child(profile.rates()) for drafter, profile in widened.items()}
    return cls(domains, rates, mean)


@dataclasses.dataclass(frozen=True)
class AcceptanceEstimate:
  """Beliefs about acceptance after some rounds.

  There are N + 1 opinions: that the text is of one of the N domains of the profiles, and that rates
  are those of recent rounds, whatever the text. The filter of a hidden Markov model follows which
  one is right: between two rounds this changes with a small probability, to any of them. So a
  change from one known domain to another is seen within a few rounds, and a text of no known domain
  is followed as well, more slowly.
  """

  prior: Prior
  probabilities: Float[np.ndarray, " M"]  # of the N domains, and of recent rounds
  tried: Mapping[str, Float[np.ndarray, "H K"]]  # in recent rounds, by drafter
  accepted: Mapping[str, Float[np.ndarray, "H K"]]

  @classmethod
  def start(cls, prior: Prior) -> "AcceptanceEstimate":
    """Returns the beliefs before the first round: all opinions are as likely."""
    nothing = {drafter: np.zeros(mean.shape) for drafter, mean in prior.mean.items()}
    count = len(prior.domains) + 1
    return cls(prior, np.full(count, 1 / count), nothing, dict(nothing))

  def observe(
    self,
    drafter: str,
    counts: AcceptanceCounts,
    *,
    hazard: float,
    forget: float,
    weight: float,
  ) -> "AcceptanceEstimate":
    """Returns the beliefs after a round of a drafter.

    hazard: the probability that another opinion is right from this round on. forget: the share of
    the old counts that is lost. weight: as in `rates`. Raises ValueError for a drafter without a
    profile.
    """
    if drafter not in self.prior.rates:
      raise ValueError(f"there is no profile of drafter {drafter!r}: {', '.join(self.prior.rates)}")
    opinions = np.clip(self._opinions(drafter, weight), 1e-3, 1 - 1e-3)
    tried, accepted = (_fitted(x, opinions.shape[1:]) for x in (counts.tried, counts.accepted))
    seen = accepted * np.log(opinions) + (tried - accepted) * np.log1p(-opinions)
    evidence = np.log(self.aged(1, hazard).probabilities) + seen.sum(axis=(1, 2))
    weights = np.exp(evidence - evidence.max())
    keep = 1 - forget
    return dataclasses.replace(
      self,
      probabilities=weights / weights.sum(),
      tried={**self.tried, drafter: keep * self.tried[drafter] + tried},
      accepted={**self.accepted, drafter: keep * self.accepted[drafter] + accepted},
    )

  def aged(self, rounds: int, hazard: float) -> "AcceptanceEstimate":
    """Returns the beliefs after rounds in which nothing was seen."""
    stays = (1 - hazard) ** rounds
    mixed = stays * self.probabilities + (1 - stays) / len(self.probabilities)
    return dataclasses.replace(self, probabilities=mixed)

  def rates(self, drafter: str, *, weight: float) -> Rates:
    """Returns the expected rates of a drafter: the mean of all opinions, by their probabilities.

    weight: trials that the profile is worth beside those of recent rounds, per depth and rank.
    """
    return _one_child(np.tensordot(self.probabilities, self._opinions(drafter, weight), axes=1))

  def _opinions(self, drafter: str, weight: float) -> Float[np.ndarray, "M H K"]:
    tried, accepted = self.tried[drafter], self.accepted[drafter]
    recent = _with_prior(accepted, tried, self.prior.mean[drafter], weight)
    return np.concatenate([self.prior.rates[drafter], recent[None]])


def _shrunk(profile: AcceptanceProfile, domain: str) -> Rates:
  counts = profile.counts(domain)
  return _with_prior(counts.accepted, counts.tried, profile.rates(), _TRIALS)


def _with_prior(accepted: np.ndarray, tried: np.ndarray, rates: Rates, trials: float) -> Rates:
  """Returns shares as if `trials` more trials had been accepted at `rates`."""
  return (accepted + trials * rates) / (tried + trials)


def _one_child(rates: Rates) -> Rates:
  """Returns rates of which each depth adds up to at most 1."""
  return rates / np.maximum(rates.sum(axis=1, keepdims=True), 1.0)


def _fitted(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the part of a table that has a prior, widened with zeros."""
  out = np.zeros(shape)
  height, breadth = (min(a, b) for a, b in zip(table.shape, shape, strict=True))
  out[:height, :breadth] = table[:height, :breadth]
  return out


def _widened(profile: AcceptanceProfile) -> AcceptanceProfile:
  """Returns the profile with tables of one size in all domains."""
  height, breadth = np.max([counts.tried.shape for counts in profile.domains.values()], axis=0)
  nothing = AcceptanceCounts.none(int(height), int(breadth))
  domains = {name: counts + nothing for name, counts in profile.domains.items()}
  return dataclasses.replace(profile, domains=domains)
