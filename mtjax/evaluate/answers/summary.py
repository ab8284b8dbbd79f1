"""Figures of the answers of one method: the score with its interval, and what the text cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtjax.evaluate.answers.protocol import AnswerTask
from mtjax.evaluate.answers.same_text import same_text
from mtjax.evaluate.generative import JudgedText, TextQuality
from mtjax.evaluate.tasks.protocol import Record
from mtjax.tuning.profiles import wilson_interval


def wilson(right: int, count: int) -> tuple[float, float]:
  """Returns Wilson's 95 % interval of a share: `right` of `count` independent answers.

  Unlike the share plus or minus its standard error it is not empty where no answer or every answer
  is right (`mtjax.tuning.profiles.wilson_interval`). Raises ValueError for a count below 1.
  """
  if not 0 <= right <= count or count < 1:
    raise ValueError(f"right answers must be 0 to count, and count at least 1: {right} of {count}")
  low, high = wilson_interval(np.array(right), np.array(count))
  return float(low), float(high)


def summary(
  task: AnswerTask, records: Sequence[Record], references: Sequence[Record]
) -> dict[str, Any]:
  """Returns figures of a method's records, and how many hold the text of `references`.

  `score` and its `interval` are None for a task without a measure. `tokens` is the mean per
  question, all turns together. `perplexity` and `entropy` are there if the records have `judged`:
  both, or None for each if no answer has a token.
  """
  count = len(records)
  tokens = sum(len(turn) for record in records for turn in record["tokens"])
  figures: dict[str, Any] = dict(questions=count, right=None, score=None, interval=None)
  if task.measure is not None:
    right = sum(record["right"] for record in records)
    figures |= dict(right=right, score=right / count, interval=list(wilson(right, count)))
  same = sum(same_text(a, b) for a, b in zip(records, references, strict=True))
  return figures | dict(
    tokens=tokens / count,
    tokens_per_forward=tokens / sum(record["forwards"] for record in records),
    tokens_per_second=tokens / sum(record["seconds"] for record in records),
    same_text=same / count,
    **_quality(records),
  )


def _quality(records: Sequence[Record]) -> dict[str, float | None]:
  if not all("judged" in record for record in records):
    return {}
  texts = [JudgedText(**one) for record in records for one in record["judged"]]
  if not sum(text.tokens for text in texts):
    return dict(perplexity=None, entropy=None)
  quality = TextQuality.of(texts)
  return dict(perplexity=quality.perplexity, entropy=quality.entropy)
