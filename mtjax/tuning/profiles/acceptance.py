"""The acceptance profile of a drafter: how often candidates are accepted, by depth and rank."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mtjax.tuning import documents
from mtjax.tuning.profiles.counts import AcceptanceCounts
from mtjax.tuning.profiles.intervals import wilson_interval
from mtjax.tuning.profiles.isotonic import isotonic
from mtjax.tuning.shapes.rated import Rates
from mtjax.tuning.whole_runs import SPREAD

# 2: of drafts that follow from texts alone, whole texts are counted.
KIND, VERSION = "mtjax acceptance profile", 2
ALL = "all"  # the name that stands for all domains together


@dataclasses.dataclass(frozen=True)
class AcceptanceProfile:
  """P(the candidate of rank r at depth d is accepted | its parent was), by domain of text.

  `of` says what was measured, as names and values: "target", "drafter", and whatever else changes
  acceptance, such as "sampling" and "verifier". `spread` is by how much texts of one domain differ
  (`mtjax.tuning.whole_runs`). Raises ValueError for no domain, for one called "all", for `of`
  without target or drafter, and for a spread below 0.
  """

  of: Mapping[str, str]
  domains: Mapping[str, AcceptanceCounts]
  spread: float = SPREAD

  def __post_init__(self):
    missing = [name for name in ("target", "drafter") if not self.of.get(name)]
    if missing:
      raise ValueError(f"a profile must say its target and its drafter; it lacks {missing}")
    if not self.domains or ALL in self.domains:
      raise ValueError(
        f"a profile needs at least one domain, and none called {ALL!r}, which stands for all of "
        f"them: got {list(self.domains)}"
      )
    if not 0 <= self.spread < math.inf:
      raise ValueError(f"the spread of texts is a variance, got {self.spread}")

  def counts(self, domain: str = ALL) -> AcceptanceCounts:
    """Returns the counts of a domain, or of all together. Raises ValueError for no such domain."""
    if domain == ALL:
      first, *others = self.domains.values()
      for one in others:
        first = first + one
      return first
    if domain not in self.domains:
      raise ValueError(f"there is no domain {domain!r}: it has {', '.join(self.domains)}")
    return self.domains[domain]

  def rates(self, domain: str = ALL) -> Rates:
    """Returns the measured shares [H, K]; 0 where nothing was tried, so that no plan relies on it.

    `mtjax.tuning.shapes.rate` says what they mean.
    """
    counts = self.counts(domain)
    return counts.accepted / np.maximum(counts.tried, 1)

  def interval(
    self, domain: str = ALL
  ) -> tuple[Float[np.ndarray, "H K"], Float[np.ndarray, "H K"]]:
    """Returns the ends of Wilson's 95 % interval of each share; 0 and 1 where nothing was tried.

    It takes trials as independent. Those of one text are not, so true intervals are wider.
    """
    counts = self.counts(domain)
    return wilson_interval(counts.accepted, counts.tried)

  def falling_rates(self, domain: str = ALL) -> Rates:
    """Returns rates that do not rise with rank: the nearest such to the shares, depth by depth.

    Nearest is by squares, weighted by trials (isotonic regression). It removes the noise of rare
    ranks, and is for candidates that are sorted by the drafter's probability.
    """
    counts, rates = self.counts(domain), self.rates(domain)
    out = np.zeros_like(rates)
    for depth, tried in enumerate(counts.tried):
      known = np.flatnonzero(tried)
      if known.size:
        out[depth, known] = -isotonic(-rates[depth, known], tried[known].astype(float))
    return out

  def check_is_of(self, **of: str) -> None:
    """Raises ValueError, with what differs, for a profile of something else."""
    documents.check_same(self.of, of, "this acceptance profile")

  def save(self, path: str | Path) -> None:
    """Writes the profile as JSON (`mtjax.tuning.documents.write`).

    Raises ValueError for a file that is there and holds anything but an older profile of the same.
    """
    record = self.record()
    documents.write(path, KIND, VERSION, record.pop("of"), record, self.of_record)

  def record(self) -> dict[str, Any]:
    """Returns the profile as JSON values, which `of_record` takes."""
    domains = {
      name: dict(
        rounds=counts.rounds,
        tried=counts.tried.tolist(),
        accepted=counts.accepted.tolist(),
        # For people; not read.
        share=np.round(self.rates(name), 4).tolist(),
      )
      for name, counts in self.domains.items()
    }
    return dict(of=dict(self.of), domains=domains, spread=self.spread)

  @classmethod
  def load(cls, path: str | Path, **of: str) -> "AcceptanceProfile":
    """Returns a saved profile.

    of: what it must be a profile of, as `check_is_of` takes it. Raises FileNotFoundError,
    DamagedDocument for a file that is none or holds impossible numbers, and ValueError for a
    profile of something else.
    """
    return documents.read(path, KIND, VERSION, of, cls.of_record)

  @classmethod
  def of_record(cls, record: Mapping[str, Any]) -> "AcceptanceProfile":
    """Returns the profile of what `record` returned. Raises ValueError for impossible numbers."""
    return cls(
      dict(record["of"]),
      {
        name: AcceptanceCounts(
          _whole(one["tried"], "tried"), _whole(one["accepted"], "accepted"), int(one["rounds"])
        )
        for name, one in record["domains"].items()
      },
      float(record.get("spread", SPREAD)),
    )


def _whole(values: Any, name: str) -> np.ndarray:
  out = np.array(values)
  if not np.issubdtype(out.dtype, np.integer):
    raise ValueError(f"{name} must be a table of whole numbers")
  return out.astype(np.int64)
