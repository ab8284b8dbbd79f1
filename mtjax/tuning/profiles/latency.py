"""The latency profile: how long the parts of a round take, by batch and context."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from mtjax.tuning import documents
from mtjax.tuning.profiles.monotone import MonotoneFit, fit_monotone

KIND, VERSION = "mtjax latency profile", 1

Points = Sequence[tuple[int, float]]
Rounds = Sequence[tuple[int, int, float]]


@dataclasses.dataclass(frozen=True)
class LatencyCurve:
  """The time of a round at one batch size and one length of context, in seconds.

  A speculative round takes fixed + verify(entries per row) + draft(steps). `fixed` is what it costs
  whatever its size: the start of programs, the verifier, the commit. `plain` is the time of a round
  of plain decoding, with all that belongs to it, as a choice within a program of several drafters.
  """

  batch: int
  context: int  # the largest number of committed tokens per row that the curve is for
  verify: MonotoneFit  # the target's forward pass, by entries per row; from 1 on
  draft: MonotoneFit  # the drafter, by steps, which are depths of the tree; from 0 or 1 on
  fixed: float
  plain: float
  # Relative errors of measured rounds, whole: predicted / measured - 1. A profile that
  # `measure_latency` made has those of rounds that took no part in the fit.
  round_errors: tuple[float, ...] = ()
  # (entries, factor) that `corrected` took.
  corrections: tuple[tuple[int, float], ...] = ()
  # Of a round of plain decoding in a program of its own, which is faster; None: not measured.
  alone: float | None = None
  start: float = 0.0  # per run: what the drafter's first round takes longer, reading the prompt

  def __post_init__(self):
    if self.batch < 1 or self.context < 0:
      raise ValueError(
        f"batch must be at least 1, context at least 0: {self.batch}, {self.context}"
      )
    if self.verify.amount[0] != 1:
      raise ValueError(
        f"times of verification must begin at 1 entry, got {self.verify.amount[0]}: a round of one "
        "entry is what all others are compared with"
      )
    if self.draft.amount[0] > 1:
      raise ValueError(f"times of drafting must begin at 1 step, got {self.draft.amount[0]}")
    # Written so that NaN, for which every comparison is false, is refused too.
    if not (0 <= self.fixed < math.inf and 0 < self.plain < math.inf):
      raise ValueError(f"fixed must be at least 0 and plain above 0: {self.fixed}, {self.plain}")
    if not (0 <= self.start < math.inf and (self.alone is None or 0 < self.alone < math.inf)):
      raise ValueError(f"start must be at least 0 and alone above 0: {self.start}, {self.alone}")

  @property
  def max_entries(self) -> int:
    """The largest number of entries per row whose time is known."""
    return self.verify.amount[-1]

  @property
  def max_steps(self) -> int:
    """The largest number of drafting steps whose time is known."""
    return self.draft.amount[-1]

  def round_seconds(self, entries: ArrayLike, steps: ArrayLike) -> Float[np.ndarray, "..."]:
    """Returns the time of a speculative round; 0 steps draft nothing and take no time to draft.

    Raises ValueError for more entries or steps than were measured.
    """
    first = self.draft.amount[0]
    drafting = np.where(np.asarray(steps) >= first, self.draft(np.maximum(steps, first)), 0.0)
    alone = self.fixed + self.verify(entries) + drafting
    return np.asarray(alone * self._factor(entries))

  def _factor(self, entries: ArrayLike) -> Float[np.ndarray, "..."]:
    if not self.corrections:
      return np.ones(())
    sizes, factors = zip(*self.corrections, strict=True)
    return np.asarray(np.interp(np.log(entries), np.log(sizes), factors))

  def entry_seconds(self, entries: ArrayLike) -> Float[np.ndarray, "..."]:
    """Returns the time that entries cost beyond the first one: verify(n) - verify(1)."""
    return np.asarray(self.verify(entries) - self.verify(1))

  def corrected(self, factors: Mapping[int, float], plain: float) -> "LatencyCurve":
    """Returns the curve with the times that rounds have turned out to take.

    factors: measured over predicted time of a whole round, by entries per row; between two sizes it
    goes along a line in the logarithm of the size, and beyond them it stays. plain: the same of
    plain decoding.
    """
    known = tuple(sorted(factors.items()))
    return dataclasses.replace(self, corrections=known, plain=self.plain * plain)


def fit_curve(
  batch: int,
  context: int,
  *,
  verify: Points,
  draft: Points,
  rounds: Rounds = (),
  checks: Rounds | None = None,
  plain: float | None = None,
  alone: float | None = None,
  start: float = 0.0,
) -> LatencyCurve:
  """Returns the curve of measured points, monotone in entries and in steps (`fit_monotone`).

  verify: (entries per row, seconds of the forward pass). draft: (steps, seconds). rounds: (entries,
  steps, seconds) of whole rounds; the fixed cost is the median of what drafting and the forward
  pass do not explain, at least 0, and is 0 without any. checks: rounds that take no part in the fit
  and whose errors are `round_errors`; None: those of `rounds`, which say less, since the fixed cost
  is fitted to them. plain: seconds of a round of plain decoding; None: fixed + verify(1). alone and
  start: as in `LatencyCurve`. Raises ValueError for points that are none.
  """
  verified, drafted = fit_monotone(verify), fit_monotone(draft)
  curve = LatencyCurve(
    batch, context, verified, drafted, 0.0, plain or verified.fitted[0], alone=alone, start=start
  )
  if rounds:
    rest = [seconds - float(curve.round_seconds(n, steps)) for n, steps, seconds in rounds]
    fixed = max(float(np.median(rest)), 0.0)
    curve = dataclasses.replace(curve, fixed=fixed, plain=plain or fixed + verified.fitted[0])
  return dataclasses.replace(
    curve,
    round_errors=tuple(
      float(curve.round_seconds(n, steps)) / seconds - 1
      for n, steps, seconds in (rounds if checks is None else checks)
    ),
  )


@dataclasses.dataclass(frozen=True)
class LatencyProfile:
  """The curves of several batch sizes and lengths of context.

  `of` says where and what was measured, as names and values: "device", "target" and "drafter", and
  whatever else changes times, such as "mesh" and "dtype". Raises ValueError where one is missing,
  for no curve, and for two of the same batch and context.
  """

  of: Mapping[str, str]
  curves: tuple[LatencyCurve, ...]

  def __post_init__(self):
    missing = [name for name in ("device", "target", "drafter") if not self.of.get(name)]
    if missing:
      raise ValueError(f"a latency profile must say its device and models; it lacks {missing}")
    keys = [(curve.context, curve.batch) for curve in self.curves]
    if not keys or len(set(keys)) < len(keys):
      raise ValueError(f"a profile needs one curve per context and batch, got {keys}")

  def at(self, batch: int, context: int = 0) -> LatencyCurve:
    """Returns the curve of the smallest measured sizes that hold this batch and context.

    That is the size which a program with padded batches runs at. Raises ValueError for sizes beyond
    those measured.
    """
    holding = [c for c in self.curves if c.batch >= batch and c.context >= context]
    if not holding:
      known = ", ".join(
        f"batch {c.batch} with {c.context}"
        for c in sorted(self.curves, key=lambda c: (c.context, c.batch))
      )
      raise ValueError(
        f"no measured size holds batch {batch} with {context} tokens of context: known are {known}"
      )
    return min(holding, key=lambda c: (c.context, c.batch))

  def check_is_of(self, **of: str) -> None:
    """Raises ValueError, with what differs, for a profile of something else."""
    documents.check_same(self.of, of, "this latency profile")

  def save(self, path: str | Path) -> None:
    """Writes the profile as JSON (`mtjax.tuning.documents.write`).

    Raises ValueError for a file that is there and holds anything but an older profile of the same.
    """
    record = self.record()
    documents.write(path, KIND, VERSION, record.pop("of"), record, self.of_record)

  def record(self) -> dict[str, Any]:
    """Returns the profile as JSON values, which `of_record` takes."""
    return dict(of=dict(self.of), curves=[dataclasses.asdict(curve) for curve in self.curves])

  @classmethod
  def load(cls, path: str | Path, **of: str) -> "LatencyProfile":
    """Returns a saved profile.

    of: what it must be a profile of, as `check_is_of` takes it. Raises FileNotFoundError,
    DamagedDocument for a file that is none, and ValueError for a profile of something else.
    """
    return documents.read(path, KIND, VERSION, of, cls.of_record)

  @classmethod
  def of_record(cls, record: Mapping[str, Any]) -> "LatencyProfile":
    """Returns the profile of what `record` returned. Raises ValueError for impossible numbers."""
    return cls(dict(record["of"]), tuple(_curve(one) for one in record["curves"]))


def _curve(one: Mapping[str, Any]) -> LatencyCurve:
  corrections = tuple((int(size), float(factor)) for size, factor in one["corrections"])
  sizes = [0, *(size for size, _ in corrections)]
  if not _rise(sizes) or not all(0 < factor < math.inf for _, factor in corrections):
    raise ValueError(
      f"corrections must be of sizes that rise from 1 or more on, by factors above 0: {corrections}"
    )
  return LatencyCurve(
    batch=int(one["batch"]),
    context=int(one["context"]),
    verify=_fit(one["verify"]),
    draft=_fit(one["draft"]),
    fixed=float(one["fixed"]),
    plain=float(one["plain"]),
    round_errors=tuple(map(float, one["round_errors"])),
    corrections=corrections,
    alone=None if one.get("alone") is None else float(one["alone"]),
    start=float(one.get("start", 0.0)),
  )


def _fit(one: Mapping[str, Any]) -> MonotoneFit:
  amount, measured, fitted = (tuple(one[name]) for name in ("amount", "measured", "fitted"))
  if not amount or not len(amount) == len(measured) == len(fitted):
    raise ValueError("amount, measured and fitted must be lists of one length")
  if not all(isinstance(one, int) for one in amount) or not _rise([-1, *amount]):
    raise ValueError(f"amounts must be whole numbers that rise from 0 or more, got {list(amount)}")
  if not all(0 < seconds < math.inf for seconds in (*measured, *fitted)):
    raise ValueError("measured and fitted seconds must be finite and above 0")
  if any(b < a for a, b in itertools.pairwise(fitted)):
    raise ValueError("fitted seconds must not fall")
  return MonotoneFit(amount, measured, fitted)


def _rise(values: Sequence[int]) -> bool:
  return all(a < b for a, b in itertools.pairwise(values))
