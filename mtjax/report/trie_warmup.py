"""A trie after more and more requests: its tokens per forward pass as a table and as a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.bench.trie_warmup import CurvePoint, fall
from mtjax.report import plotting
from mtjax.report.cells import Cells

Curve = Mapping[str, Any]  # of `curve_row`

# Of the retrievals; then of what they are compared with.
_COLORS = {"hier": "C0", "par": "C1", "one": "C2"}
_OTHERS = ("C3", "0.4", "C4", "C5")


def curve_row(points: Sequence[CurvePoint]) -> dict[str, Any]:
  """Returns one retrieval's curve for JSON."""
  drop, error = fall(points)
  return dict(
    requests=[point.requests for point in points],
    tokens_per_forward=[round(point.rate, 4) for point in points],
    standard_error=[round(point.error, 4) for point in points],
    nodes=[point.nodes for point in points],
    largest_fall=round(drop, 4),
    standard_error_of_the_fall=round(error, 4),
  )


def warmup_table(curves: Mapping[str, Curve], title: str) -> Cells:
  """Returns tokens per forward pass after numbers of requests; one row a curve.

  The last column is the largest fall from one point to a later one, with its standard error. All
  curves must have the same numbers of requests.
  """
  requests = next(iter(curves.values()))["requests"]
  rows = []
  for name, curve in curves.items():
    cells = [f"{rate:.3f}" for rate in curve["tokens_per_forward"]]
    drop = f"{curve['largest_fall']:.3f} ± {curve['standard_error_of_the_fall']:.3f}"
    rows.append((name, *cells, drop))
  return Cells(title, ("after requests", *(f"{n:,}" for n in requests), "largest fall"), rows)


def figure(sets: Mapping[str, Mapping[str, Curve]]) -> Any:
  """Returns a matplotlib figure: tokens per forward pass over requests, one panel a set.

  `sets` has for each set its curves by name; a name has one color in all panels, and the line is
  dashed where it is not the name of a retrieval. Bars are one standard error. Raises
  ModuleNotFoundError, naming the extra, without matplotlib.
  """
  drawn = plotting.new_figure(figsize=(4.4 * len(sets), 4.0))
  axes = drawn.subplots(1, len(sets), squeeze=False)[0]
  labels = dict.fromkeys(label for curves in sets.values() for label in curves)
  others = [label for label in labels if label not in _COLORS]
  colors = _COLORS | {label: _OTHERS[n % len(_OTHERS)] for n, label in enumerate(others)}
  for axis, (name, curves) in zip(axes, sets.items(), strict=True):
    for label, curve in curves.items():
      axis.errorbar(
        curve["requests"],
        curve["tokens_per_forward"],
        curve["standard_error"],
        color=colors[label],
        linestyle="-" if label in _COLORS else "--",
        marker=".",
        linewidth=1.2,
        capsize=2,
        label=label,
      )
    axis.set(title=name, xlabel="requests before", ylim=(1.0, None))
    axis.grid(True, alpha=0.2)
    axis.legend(fontsize=8, loc="lower right")
  axes[0].set_ylabel("tokens per forward pass")
  drawn.tight_layout()
  return drawn
