"""The table of 2502.18779: the best acceptance of any rule, and that of known rules."""

import collections
import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from mtjax.evaluate.multi_draft.acceptance import RULES, acceptance
from mtjax.evaluate.multi_draft.recorded_pairs import RecordedPairs
from mtjax.types import DraftScheme
from mtjax.verify import optimal_acceptance

ALL = "all"  # every position of every text

Row = dict[str, Any]  # JSON


def check(temperatures: Sequence[float], drafts: Sequence[int]) -> None:
  """Raises ValueError for temperatures that are not above 0 and numbers of drafts below 1."""
  if not temperatures or not all(0 < t < np.inf for t in temperatures):
    raise ValueError(f"temperatures must be above 0, got {list(temperatures)}")
  if not drafts or min(drafts) < 1:
    raise ValueError(f"numbers of drafts must be at least 1, got {list(drafts)}")


def measure(
  pairs: RecordedPairs,
  *,
  temperatures: Sequence[float],
  drafts: Sequence[int],
  samples: int = 16,
  progress: Callable[[str], None] = lambda message: None,
  finished: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
  """Returns the data of `mtjax.report.multi_draft.page`: `rows`, and how they were computed.

  `progress` is called with the name of the next part, and `finished` with the results so far after
  every temperature. Raises ValueError for what `check` refuses, and for a text named "all".
  """
  check(temperatures, drafts)
  if ALL in pairs.text:
    raise ValueError(f"{ALL!r} means all texts together: give the text another name")
  rows: list[Row] = []
  results: dict[str, Any] = dict(
    date=datetime.date.today().isoformat(),
    versions={name: metadata.version(name) for name in ("mtjax", "jax", "numpy")},
    settings=pairs.settings | dict(samples=samples),
    vocabulary=pairs.target.shape[1],
    positions=dict(collections.Counter(pairs.text)),
    rows=rows,
  )
  for temperature in temperatures:
    new = rows_at(pairs, temperature, drafts=drafts, samples=samples, progress=progress)
    rows = rows + new
    results = results | dict(rows=rows)
    finished(results)
  return results


def as_json(results: Mapping[str, Any]) -> str:
  """Returns results as JSON, a row per line."""
  head = json.dumps({name: value for name, value in results.items() if name != "rows"}, indent=1)
  rows = ",\n".join(f"  {json.dumps(row)}" for row in results["rows"])
  return f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def rows_at(
  pairs: RecordedPairs,
  temperature: float,
  *,
  drafts: Sequence[int],
  samples: int = 16,
  progress: Callable[[str], None] = lambda message: None,
) -> list[Row]:
  """Returns one row per text (and `ALL`), number of drafts and draft scheme.

  A row holds `bound`, the mean of `optimal_acceptance` over the positions, and for each rule of the
  scheme its `acceptance` and the `gap` between the two. `lead` is how far the bound is above the
  acceptance of the usual rules for sampled drafts, and above the bound of drafts without
  replacement. Each is [mean, standard error over positions]. `sampling_error` is the part of a
  rule's error that comes from sampled drafts: 0 where the mean over drafts is exact (see
  `acceptance`).
  """
  p, q = pairs.probs(temperature)
  progress(f"temperature {temperature:g}: verifiers")
  accepted = acceptance(p, q, drafts, samples=samples)
  rows: list[Row] = []
  for at, n in enumerate(drafts):
    best = {}
    for scheme in schemes(n):
      progress(f"temperature {temperature:g}, {n} drafts, {scheme.value}: bound")
      best[scheme] = np.array(
        [optimal_acceptance(*pair, n, scheme) for pair in zip(p, q, strict=True)]
      )
    mean, error = ({name: x[:, at] for name, x in part.items()} for part in accepted)
    for scheme in best:
      cell = dict(temperature=temperature, drafts=n, scheme=scheme.value)
      rows += _of_texts(cell, pairs.text, scheme, best, mean, error)
  return rows


def schemes(n: int) -> list[DraftScheme]:
  """Returns the draft schemes for n drafts: a pair has two."""
  return [scheme for scheme in RULES if scheme is not DraftScheme.PAIR or n == 2]


def _of_texts(cell, text, scheme, best, mean, error) -> Iterator[Row]:
  others = {name: mean[name] for name in ("rrs_without", "kseq")}
  others["bound without replacement"] = best[DraftScheme.WITHOUT_REPLACEMENT]
  for name in (ALL, *dict.fromkeys(text)):
    at = np.array([name in (ALL, one) for one in text])
    yield dict(
      text=name,
      **cell,
      bound=_mean(best[scheme][at]),
      rules={
        rule: dict(
          acceptance=_mean(mean[rule][at]),
          gap=_mean((best[scheme] - mean[rule])[at]),
          sampling_error=_rounded(np.sqrt((error[rule][at] ** 2).sum()) / at.sum()),
        )
        for rule in RULES[scheme]
      },
      lead={other: _mean((best[scheme] - value)[at]) for other, value in others.items()},
    )


def _mean(values) -> list[float]:
  """Returns [mean, standard error of the mean]."""
  return [_rounded(values.mean()), _rounded(values.std(ddof=1) / np.sqrt(len(values)))]


def _rounded(value) -> float:
  return float(np.round(value, 6)) + 0.0  # no -0.0
