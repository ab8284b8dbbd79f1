"""Rounds that a drafter would have had in a text that was decoded without it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mtjax.tuning.profiles.counts import AcceptanceCounts


class Watched(NamedTuple):
  """How many drafts of a chain would have been right behind each of the last tokens of each row.

  right[b][w]: of the drafts behind the first length[b] - W + w tokens, as far as they are known to
  be right; W is the length of right[b]. begin: the tokens of each row that were there before its
  drafts were watched. height: of the chain.
  """

  right: Sequence[Sequence[int]]
  length: Sequence[int]  # tokens of the text of each row
  begin: Sequence[int]
  height: int


def watched_rounds(
  watched: Watched, begin: Sequence[int] | None = None, *, ended: bool = False
) -> tuple[AcceptanceCounts, list[int]]:
  """Returns the counts of the rounds that would have been, and where the next one of each row is.

  A round drafts behind the first begin[b] tokens of row b; its right drafts and one more token are
  emitted, and the next round drafts behind them. So these are the counts of decoding with the
  chain, wherever a draft is accepted if it is the token that plain decoding emits. A round whose
  right drafts reach the end of the text is not over. It is where the next one of its row begins;
  if the texts have `ended`, it counts with the drafts that were judged.

  begin: None: `watched.begin`.
  """
  height = watched.height
  whole, cut = np.zeros((2, height + 1), np.int64)
  ends = []
  begin = watched.begin if begin is None else begin
  for right, length, place in zip(watched.right, watched.length, begin, strict=True):
    first = length - len(right)
    place = max(place, first)
    while place < length:
      accepted = right[place - first]
      if accepted < height and place + accepted >= length:
        if ended:
          cut[accepted] += 1
          place = length
        break
      whole[accepted] += 1
      place += accepted + 1
    ends.append(place)
  return counts_of_lengths(whole, cut), ends


def counts_of_lengths(whole: Int[np.ndarray, " H"], cut: Int[np.ndarray, " H"]) -> AcceptanceCounts:
  """Returns the counts of rounds by the number of drafts that were accepted in them.

  whole[a]: rounds with `a` accepted drafts. cut[a]: rounds with `a` accepted drafts at the end of a
  text, which judged no further one.
  """
  # Rounds with at least so many right drafts; one that was cut has no draft that was refused.
  reached, of_cut = (np.cumsum(each[::-1])[::-1] for each in (whole, cut))
  tried, hit = reached[:-1] + of_cut[1:], reached[1:] + of_cut[1:]
  return AcceptanceCounts(tried[:, None], hit[:, None], int(reached[0] + of_cut[0]))
