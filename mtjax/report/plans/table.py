"""The table of a plan: the best of each drafter and kind."""

from mtjax.report.cells import Cells
from mtjax.report.plans.tuned import TunedPlan, label

_HEADER = (
  "", "drafts", "depth", "entries", "tokens per round", "ms per round", "tokens/s",
  "predicted speed-up", "measured speed-up",
)  # fmt: skip


def plan_table(tuned: TunedPlan) -> Cells:
  """Returns the best round of each drafter and kind beside plain decoding; > marks the choice.

  Tokens per round are per row, tokens per second of the whole batch, entries per row of the
  target's pass.
  """
  rows = []
  for one in tuned.best_rounds:
    measured = tuned.measured_speedup(one)
    rows.append(
      (
        ("> " if label(one) == label(tuned.plan.choice) else "") + label(one),
        f"{one.topology.size - 1}",
        f"{one.topology.height}",
        f"{one.entries}",
        f"{one.expected_tokens:.3f}",
        f"{1e3 * one.seconds:.3f}",
        f"{one.tokens_per_second:.1f}",
        f"{tuned.predicted_speedup(one):.3f}",
        "" if measured is None else f"{measured:.3f}",
      )
    )
  header, measured_column = _HEADER, any(row[-1] for row in rows)
  if not measured_column:
    header, rows = header[:-1], [row[:-1] for row in rows]
  return Cells(tuned.title, header, rows)
