"""A picture of multi-draft bounds, and of the acceptance that verifiers reach."""

from typing import Any

from mtjax.report import plotting
from mtjax.report.multi_draft.tables import COLUMNS, PLUS, WITH, WITHOUT, Bounds

_COLORS = {WITH: "C0", WITHOUT: "C1", PLUS: "C2", "delta": "0.6"}
_STYLES = {None: "-", "rrs_with": "--", "rrs_without": "--", "kseq": ":"}


def figure(bounds: Bounds) -> Any:
  """Returns a matplotlib figure of the share accepted over temperature and number of drafts.

  Solid lines are bounds; a scheme whose verifier reaches its bound has that line alone. Raises
  ModuleNotFoundError, naming the extra, without matplotlib.
  """
  drawn = plotting.new_figure(figsize=(11, 4.4))
  axes = drawn.subplots(1, 2, sharey=True)
  last = bounds.temperatures[-1]
  over_temperature = [(t, t, bounds.shown) for t in bounds.temperatures]
  over_drafts = [(n, last, n) for n in bounds.drafts]
  for axis, points, xlabel, title in (
    (axes[0], over_temperature, "temperature", f"{bounds.shown} drafts"),
    (axes[1], over_drafts, "drafts at a position", f"temperature {last:g}"),
  ):
    for column, scheme, rule in COLUMNS:
      if scheme in _COLORS:
        _line(axis, bounds, points, column, scheme, rule)
    axis.set(xlabel=xlabel, title=title, xticks=[x for x, _, _ in points])
    axis.grid(True, alpha=0.2)
  axes[0].set_ylabel("share of positions that accept a draft")
  axes[0].legend(fontsize=8, loc="lower left")
  drawn.tight_layout()
  return drawn


def _line(axis, bounds, points, column, scheme, rule) -> None:
  rows = [(x, bounds.row(t, n, scheme)) for x, t, n in points]
  shares = [
    row["bound"][0] if rule is None else row["rules"][rule]["acceptance"][0] for _, row in rows
  ]
  style = _STYLES.get(rule, "-")
  axis.plot([x for x, _ in rows], shares, style, color=_COLORS[scheme], label=column, marker=".")
