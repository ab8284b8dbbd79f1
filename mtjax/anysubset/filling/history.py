"""The history of a fill: which entries each forward pass decided."""

import numpy as np
from jaxtyping import Int

from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.rounds.history import PassRecord


def pass_records(
  problem: Problem, state: FillState, before: Int[np.ndarray, " B"]
) -> tuple[tuple[PassRecord, ...] | None, ...]:
  """Returns what the passes after the first `before[b]` of each row decided; None: there is none.

  `problem.recorded` holds. Entries of one pass are in the order of the fill, which
  is that in which they were sampled.
  """
  order, total, passes = (np.asarray(x) for x in (problem.order, problem.total, state.forwards))
  decided_at, token, drafted = (
    np.asarray(x) for x in (state.decided_at, state.token, state.drafted)
  )
  log_prob = np.asarray(state.log_prob)
  place = np.zeros_like(token) if state.place is None else np.asarray(state.place)

  def of_pass(row: int, number: int) -> PassRecord:
    entries = order[row, : total[row]]
    entries = entries[decided_at[row, entries] == number]
    entries = entries[np.argsort(place[row, entries], kind="stable")]
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
