"""Rounds that a drafter would have had in a text that was decoded without it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtjax.tuning.profiles.counts import AcceptanceCounts


class Watched(NamedTuple):
  """How many drafts of a chain would have been right behind each of the last tokens of each row.

  right[b][w]: of the drafts behind the first length[b] - W + w tokens, as far as they are known to
  be right; W is the length of right[b]. height: of the chain.
  """

  right: Sequence[Sequence[int]]
  length: Sequence[int]  # tokens of the text of each row
  height: int


def watched_rounds(watched: Watched, begin: Sequence[int]) -> tuple[AcceptanceCounts, list[int]]:
  """Returns the counts of the rounds that would have been, and where the next one of each row is.

  A round drafts behind the first begin[b] tokens of row b; its right drafts and one more token are
  emitted, and the next round drafts behind them. So these are the counts of decoding with the
  chain, wherever a draft is accepted if it is the token that plain decoding emits. A round whose
  drafts reach the end of the text is not over: it is where the next one of its row begins.
  """
  rounds, ends = np.zeros(watched.height + 1, np.int64), []
  for right, length, place in zip(watched.right, watched.length, begin, strict=True):
    first = length - len(right)
    place = max(place, first)
    while place < length:
      found = right[place - first]
      if found < watched.height and place + found >= length:
        break
      rounds[found] += 1
      place += found + 1
    ends.append(place)
  # Rounds with at least so many right drafts.
  reached = np.cumsum(rounds[::-1])[::-1]
  counts = AcceptanceCounts(reached[:-1, None].copy(), reached[1:, None].copy(), int(reached[0]))
  return counts, ends
