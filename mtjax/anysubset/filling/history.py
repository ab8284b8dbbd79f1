"""The history of a fill: which entries each forward pass decided."""

import numpy as np
from jaxtyping import Int

from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.rounds.history import PassRecord


def pass_records(
  problem: Problem, state: FillState, before: Int[np.ndarray, " B"]
) -> tuple[tuple[PassRecord, ...] | None, ...]:
  """Returns what the passes after the first `before[b]` of each row decided; None: there is none.

  `problem.recorded` holds. Entries of one pass are in the order of the fill.
  """
  order, total, passes = (np.asarray(x) for x in (problem.order, problem.total, state.forwards))
  when, token, drafted = (np.asarray(x) for x in (state.when, state.token, state.drafted))
  log_prob = np.asarray(state.log_prob)

  def of_pass(row: int, number: int) -> PassRecord:
    entries = order[row, : total[row]]
    entries = entries[when[row, entries] == number]
    return PassRecord(
      number=number,
      entries=tuple(entries.tolist()),
      tokens=tuple(token[row, entries].tolist()),
      log_probs=tuple(log_prob[row, entries].tolist()),
      drafted=tuple(drafted[row, entries].tolist()),
    )

  return tuple(
    tuple(of_pass(row, number + 1) for number in range(before[row], passes[row])) or None
    for row in range(len(passes))
  )
