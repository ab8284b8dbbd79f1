"""Sentences about the table of multi-draft bounds, made from its figures."""

from collections.abc import Iterator, Sequence

from mtjax.report.multi_draft.tables import COLUMNS, PLUS, WITH, WITHOUT, Bounds

_SPELLED = {"RRS with": "RRS with replacement", "RRS without": "RRS without replacement"}
_VERIFIERS = [(_SPELLED.get(name, name), scheme, rule) for name, scheme, rule in COLUMNS if rule]
_ROUNDING = 2e-6  # rounding of the results: a smaller gap is none


def findings(bounds: Bounds) -> list[str]:
  """Says how far each verifier is below its bound, and which drafts are accepted most often."""
  return [*_gaps(bounds), *_best_verifiers(bounds), _past_sampling(bounds), _top_n(bounds)]


def beside_the_paper(bounds: Bounds) -> list[str]:
  """Lists the findings of 2502.18779, each with the corresponding one here."""
  several = [(t, n) for t, n in bounds.settings() if n > 1]
  more = [_bound(bounds, t, n, WITHOUT) - _bound(bounds, t, n, WITH) for t, n in several]
  higher = sum(difference > _ROUNDING for difference in more)
  worst = _worst_gaps(bounds)
  sampled = {
    name: worst[name][0] for name in ("RRS with replacement", "K-SEQ", "RRS without replacement")
  }
  short = [f"{name} {gap:.3f}" for name, gap in sampled.items() if gap > _ROUNDING]
  spread, t = max((_spread(bounds, t), t) for t in bounds.temperatures)
  ahead = _temperatures(bounds, bounds.shown, "rrs_without", +1)
  behind = _temperatures(bounds, bounds.shown, "rrs_without", -1)
  return [
    "Sampling without replacement has a higher bound than sampling with replacement. "
    f"Here: in {higher} of {len(several)} rows of two and more drafts, by up to {max(more):.3f}.",
    "The known verifiers of sampled drafts do not reach their bounds. "
    f"Here: the largest gaps are {_listed(short) or 'none'}.",
    "How drafts are chosen has a strong influence on the bound. "
    f"Here: with {bounds.shown} drafts at temperature {t:g} the bounds of the three ways to choose "
    f"them (with and without replacement, greedy-plus-one) are up to {spread:.3f} apart; the "
    f"largest gap of a verifier to its bound is {max(sampled.values()):.3f}.",
    "Greedy drafts have a verifier that reaches its bound, and can lose their lead at high "
    "temperatures. "
    f"Here, greedy-plus-one against RRS without replacement, {bounds.shown} drafts: ahead at "
    f"{_listed(ahead) or 'no temperature'}, behind at {_listed(behind) or 'no temperature'} "
    "(by two standard errors or more).",
  ]


def errors(bounds: Bounds) -> str:
  """Says how exact the figures over all texts are."""
  rows = [
    row
    for t, n in bounds.settings()
    for scheme in dict.fromkeys(scheme for _, scheme, _ in _VERIFIERS)
    if (row := bounds.row(t, n, scheme))
  ]
  rules = [rule for row in rows for rule in row["rules"].values()]
  share = max(max(row["bound"][1] for row in rows), max(rule["acceptance"][1] for rule in rules))
  gap = max(rule["gap"][1] for rule in rules)
  sampling = max(rule["sampling_error"] for rule in rules)
  return (
    f"Over all texts the largest standard error of a share is {share:.3f} and of a gap {gap:.4f}: "
    "gaps compare verifiers on the same positions, so they are far more exact than the shares. "
    f"Sampled refusals of RRS without replacement add at most {sampling:.4f} to an error."
  )


def _gaps(bounds: Bounds) -> Iterator[str]:
  worst = _worst_gaps(bounds)
  below = {name: at for name, at in worst.items() if at[0] > _ROUNDING}
  for name, (gap, bound, t, n) in sorted(below.items(), key=lambda item: -item[1][0]):
    yield (
      f"{name} is up to {gap:.3f} below its bound: {gap / bound:.1%} of it, with {n} drafts at "
      f"temperature {t:g}."
    )
  if reached := [name for name in worst if name not in below]:
    yield f"{_listed(reached)}: no gap in any row."


def _worst_gaps(bounds: Bounds) -> dict[str, tuple[float, float, float, int]]:
  """Returns the largest gap of each verifier, with its bound, temperature and number of drafts."""
  worst = {}
  for name, scheme, rule in _VERIFIERS:
    rows = [(row, t, n) for t, n in bounds.settings() if (row := bounds.row(t, n, scheme))]
    if rows:
      worst[name] = max((r["rules"][rule]["gap"][0], r["bound"][0], t, n) for r, t, n in rows)
  return worst


def _best_verifiers(bounds: Bounds) -> Iterator[str]:
  for n in bounds.drafts:
    if n > 1:
      best: dict[str, list[str]] = {}
      for t in bounds.temperatures:
        items = [
          (row["rules"][rule]["acceptance"][0], name)
          for name, scheme, rule in _VERIFIERS
          if (row := bounds.row(t, n, scheme))
        ]
        top = max(value for value, _ in items)
        names = " and ".join(name for value, name in items if value > top - _ROUNDING)
        best.setdefault(names, []).append(f"{t:g}")
      parts = [f"{names} at {_listed(temperatures)}" for names, temperatures in best.items()]
      yield f"Accepted most often of {n} drafts: {'; '.join(parts)}."


def _past_sampling(bounds: Bounds) -> str:
  """Says where no verifier of drafts without replacement could reach greedy-plus-one."""
  parts = []
  for n in bounds.drafts:
    past = _temperatures(bounds, n, "bound without replacement", +1)
    if n > 1 and past:
      parts.append(f"{n} drafts at {_listed(past)}")
  if not parts:
    return (
      "No row has greedy-plus-one above the bound of drafts without replacement: an ideal verifier "
      "of these would be accepted at least as often everywhere."
    )
  return (
    "Greedy-plus-one is accepted more often than any verifier of drafts without replacement could "
    f"be, its share being above their bound: {'; '.join(parts)}."
  )


def _top_n(bounds: Bounds) -> str:
  items = []
  for t in bounds.temperatures:
    row, other = (bounds.row(t, bounds.shown, scheme) for scheme in ("delta", PLUS))
    items.append(f"{other['bound'][0] - row['bound'][0]:.3f} at {t:g}")
  return (
    "The one sample of greedy-plus-one matters: without it, the same number of most probable "
    f"tokens (top n) loses, with {bounds.shown} drafts, {_listed(items)}."
  )


def _temperatures(bounds: Bounds, drafts: int, other: str, sign: int) -> list[str]:
  """Returns where greedy-plus-one leads (+1) or trails (-1) by two standard errors or more."""
  items = []
  for t in bounds.temperatures:
    mean, error = bounds.row(t, drafts, PLUS)["lead"][other]
    if sign * mean > max(2 * error, _ROUNDING):
      items.append(f"{t:g}")
  return items


def _spread(bounds: Bounds, temperature: float) -> float:
  items = [_bound(bounds, temperature, bounds.shown, scheme) for scheme in (WITH, WITHOUT, PLUS)]
  return max(items) - min(items)


def _bound(bounds: Bounds, temperature: float, drafts: int, scheme: str) -> float:
  return bounds.row(temperature, drafts, scheme)["bound"][0]


def _listed(parts: Sequence[str]) -> str:
  return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
