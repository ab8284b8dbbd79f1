"""The picture of a plan: its tree, what is accepted, what rounds take, and how fast that is."""

from typing import Any

import numpy as np

from mtjax.report import plotting
from mtjax.report.plans.tree import draw_tree
from mtjax.report.plans.tuned import TunedPlan, label
from mtjax.tuning.plan import PlannedRound
from mtjax.tuning.shapes import rate

_NAMES = ("first", "second", "third", "fourth")  # rates of later candidates are near 0
_BLUE, _ORANGE, _GREY = "#2b5fa8", "#c9761b", "0.55"
_SHADES = ("#08306b", "#2171b5", "#6baed6", "#b3cde3")


def figure(tuned: TunedPlan) -> Any:
  """Returns a matplotlib figure of a plan.

  Above is the tree, with the probability that each node is accepted. Below are acceptance by depth
  and rank with 95 % intervals where it was measured, the time of a round by entries with the chosen
  size, and the predicted beside the measured speed-up. Where plain decoding is chosen, the best
  tree is drawn all the same, and the title says so. Raises ValueError where no drafter competed,
  and ModuleNotFoundError, naming the extra, without matplotlib.
  """
  one = tuned.drawn
  if one is None:
    raise ValueError("there is nothing to draw: no drafter competed with plain decoding")
  drawn = plotting.new_figure(figsize=(13, 8), layout="constrained")
  above, below = drawn.subfigures(2, 1, height_ratios=(1.25, 1))
  rated = rate(one.topology, tuned.competitor(one).rates)
  draw_tree(above.subplots(), rated, title=_title(tuned, one))
  acceptance, latency, speed = below.subplots(1, 3)
  _acceptance(acceptance, tuned, one)
  _latency(latency, tuned, one)
  _speed(speed, tuned)
  for axis in (acceptance, latency, speed):
    axis.spines[["top", "right"]].set_visible(False)
  return drawn


def _title(tuned: TunedPlan, one: PlannedRound) -> str:
  chosen = f"{label(one)} of {one.topology.size - 1}, {one.expected_tokens:.2f} tokens per round"
  if one is not tuned.plan.choice:
    chosen = f"plain decoding is fastest; the best draft: {chosen}"
  return f"{tuned.title}\n{chosen}"


def _acceptance(axis, tuned: TunedPlan, one: PlannedRound) -> None:
  rates = tuned.competitor(one).rates
  depth = np.arange(1, len(rates) + 1)
  profile = tuned.profiles.get(str(one.drafter))
  bounds = profile.interval(tuned.domain) if profile is not None else None
  tried = profile.counts(tuned.domain).tried if profile is not None else rates > 0
  for rank in range(min(len(_NAMES), rates.shape[1], tried.shape[1])):
    if not tried[:, rank].any():
      continue
    color = _SHADES[rank]
    axis.plot(depth, rates[:, rank], color=color, marker=".", label=f"{_NAMES[rank]} candidate")
    if bounds is not None:
      low, high = (side[: len(depth), rank] for side in bounds)
      known = depth[: len(low)]
      low, high = (np.where(tried[: len(low), rank] > 0, side, np.nan) for side in (low, high))
      axis.fill_between(known, low, high, color=color, alpha=0.15, linewidth=0)
  axis.set(
    xlabel="depth", ylabel="P(accepted | parent accepted)", ylim=(0, 1), xticks=depth,
    title=f"acceptance of {one.drafter}" + " (95 % intervals)" * (bounds is not None),
  )  # fmt: skip
  axis.legend(frameon=False, fontsize="small")


def _latency(axis, tuned: TunedPlan, one: PlannedRound) -> None:
  curve = tuned.competitor(one).latency
  entries = np.arange(1, curve.max_entries + 1)
  seconds = curve.round_seconds(entries, one.steps)
  axis.plot(entries, 1e3 * seconds, color=_BLUE, label=f"round with {one.steps} steps of drafting")
  # Of rounds that were measured whole, nothing is known apart but their drafting.
  alone = "the target's pass alone" if curve.fixed else "round without drafting"
  axis.plot(entries, 1e3 * curve.verify(entries), color=_GREY, label=alone)
  points = np.array(curve.verify.amount)
  if len(points) < len(entries):  # measured at some sizes, and not predicted for all
    axis.plot(points, 1e3 * np.array(curve.verify.measured), ".", color=_GREY)
  axis.axhline(1e3 * curve.plain, color=_GREY, linestyle=":", label="round of plain decoding")
  axis.plot([one.entries], [1e3 * one.seconds], "o", color=_ORANGE, label="this plan", zorder=3)
  axis.set(xlabel="entries per row", ylabel="ms", ylim=(0, None), title="time of a round")
  axis.legend(frameon=False, fontsize="small", loc="center right")


def _speed(axis, tuned: TunedPlan) -> None:
  rounds = tuned.best_rounds[::-1]
  place = np.arange(len(rounds))
  measured = [tuned.measured_speedup(one) for one in rounds]
  any_measured = any(value is not None for value in measured)
  height = 0.38 if any_measured else 0.6
  shift = height / 2 if any_measured else 0.0
  predicted = [tuned.predicted_speedup(one) for one in rounds]
  bars = axis.barh(place + shift, predicted, height, color="#9ecae1", label="predicted")
  axis.bar_label(bars, fmt="%.2f", padding=2, fontsize="small")
  if any_measured:
    bars = axis.barh(
      place - shift, [value or 0.0 for value in measured], height, color=_BLUE, label="measured"
    )
    texts = ["" if value is None else f"{value:.2f}" for value in measured]
    axis.bar_label(bars, texts, padding=2, fontsize="small")
    axis.legend(
      frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14)
    )
  axis.axvline(1.0, color=_GREY, linestyle=":")
  axis.set_yticks(place, [label(one) for one in rounds])
  axis.set_xlim(0, 1.12 * max(*predicted, *(value or 0.0 for value in measured)))
  axis.set(
    xlabel="speed over plain decoding", title=f"predicted {'and measured ' * any_measured}speed"
  )
