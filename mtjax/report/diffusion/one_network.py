"""The table of one network that is trained for several ways to write."""

from collections.abc import Mapping
from typing import Any

from mtjax.report.cells import Cells


def one_network_table(rows: Mapping[str, Mapping[str, Any]]) -> Cells:
  """Returns the table of rows of `mtjax.evaluate.one_network.measure`, by objective."""
  header = (
    "objective", "entries, training", "bytes of text", "kind", "bits per byte", "middle",
    "sees both sides", "tokens/forward", "ms/token", "gen. perplexity", "entropy",
  )  # fmt: skip
  lines = [
    (
      name,
      f"{row['entries'] / 1e6:.2f} M",
      f"{row['text_tokens'] / 1e6:.2f} M",
      row["kind"],
      f"{row['bits']:.3f} ± {row['error']:.3f}",
      f"{row['middle']:.3f} ± {row['middle_error']:.3f}",
      "yes" if row["both_sides"] else "no",
      f"{row['tokens_per_forward']:.2f}",
      f"{row['milliseconds_per_token']:.2f}",
      f"{row['perplexity']:.1f}",
      f"{row['entropy']:.2f}",
    )
    for name, row in rows.items()
  ]
  return Cells("One network, five objectives, equal compute", header, lines)
