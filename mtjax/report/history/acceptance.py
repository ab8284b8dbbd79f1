"""How many drafts rounds accept, as a picture: the share of rounds by depth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mtjax.decode.generation import Generation
from mtjax.report.plotting import new_figure

# Distinct for every kind of colour vision, and by their marks in grey.
_COLORS = ("#2b5fa8", "#c9761b", "#2a9d8f", "#7a5fb5", "#b0413e", "#4a4a55")
_MARKS = "osD^vX"


def acceptance_by_depth(run: Generation) -> Float[np.ndarray, " height"]:
  """Returns the shares of rounds that accepted at least 1, 2, ... drafts, over all rows.

  The prefill is no round. Raises ValueError for a method without drafts.
  """
  counts = run.counters.get("accepted_at_depth")
  if counts is None:
    raise ValueError("this run has no drafts: its method decodes one token per forward pass")
  rounds = run.counters["target_forwards"] - len(run.tokens)
  return np.asarray(counts, float) / max(rounds, 1)


def acceptance_picture(runs: Mapping[str, Generation]) -> Any:
  """Returns a figure of `acceptance_by_depth`, one line per run, by the names of the runs.

  Raises ValueError without a run, for a run without drafts, and ModuleNotFoundError, naming the
  extra, without matplotlib.
  """
  if not runs:
    raise ValueError("there is no run to show: give at least one, by name")
  figure = new_figure(figsize=(6.4, 3.6), layout="constrained")
  axes = figure.subplots()
  for number, (name, run) in enumerate(runs.items()):
    shares = acceptance_by_depth(run)
    axes.plot(
      np.arange(1, len(shares) + 1), shares, color=_COLORS[number % len(_COLORS)],
      marker=_MARKS[number % len(_MARKS)],
      label=f"{name}: {run.counters['tokens_per_forward']:.2f} tokens per forward pass",
    )  # fmt: skip
  axes.set(ylim=(0, 1.02), xlabel="depth in the tree of drafts", ylabel="share of rounds")
  axes.set_title("Rounds that accept a draft at this depth", loc="left", fontsize=10)
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.grid(color="#e5e5e5")
  axes.legend(frameon=False, fontsize=9)
  return figure
