"""A picture of speeds: bars of tokens per second, a group per prompt set."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.report import plotting

_OTHERS, _OURS = ("0.82", "0.62", "0.42"), ("#9ecae1", "#4292c6", "#08519c")


def figure(rows: Sequence[Mapping[str, Any]], systems: Mapping[str, str]) -> Any:
  """Returns a matplotlib figure: tokens per second of some systems on every prompt set.

  rows: those of `speed_rows` at one temperature. systems: name -> label, in the order of the bars;
  those of mtjax are blue, at most three, and others grey, at most three. A system without a figure
  on a set has no bar there. Raises ValueError where none of them ran, and ModuleNotFoundError,
  naming the extra, without matplotlib.
  """
  rates = {(row["system"], row["prompt_set"]): row["tokens_per_second"] for row in rows}
  sets = list(dict.fromkeys(row["prompt_set"] for row in rows))
  ran = [name for name in systems if any((name, one) in rates for one in sets)]
  if not ran:
    raise ValueError(f"none of {', '.join(systems)} is among the results")
  drawn = plotting.new_figure(figsize=(1.5 * len(sets) + 1, 3.6), layout="constrained")
  axis = drawn.subplots()
  ours, others = iter(_OURS), iter(_OTHERS)
  width = 0.84 / len(ran)
  for number, name in enumerate(ran):
    places = [n for n, one in enumerate(sets) if (name, one) in rates]
    axis.bar(
      [n + (number - (len(ran) - 1) / 2) * width for n in places],
      [rates[name, sets[n]] for n in places],
      width,
      label=systems[name],
      color=next(ours if name.startswith("mtjax") else others),
    )
  axis.set_xticks(range(len(sets)), sets)
  axis.set_ylabel("tokens per second")
  axis.spines[["top", "right"]].set_visible(False)
  axis.legend(
    frameon=False, fontsize="small", ncols=len(ran), loc="lower left", bbox_to_anchor=(0, 1)
  )
  return drawn
