"""Answers in the format of Spec-Bench, from which its own evaluation/speed.py computes speed.

A file holds the answers of one method, one JSON object per line. Its fields are those that
evaluation/eval.py of https://github.com/hemingkx/Spec-Bench writes. speed.py takes the file of a
method and that of plain decoding (here `ar`). The mean of all `accept_lengths` is its "mean
accepted tokens"; the speed-up is the ratio of the mean tokens per second of a question, where the
tokens of the method are `new_tokens` and those of plain decoding are counted from the text again.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtjax.evaluate.answers.protocol import Question
from mtjax.evaluate.tasks.protocol import Record


def model_identity(model: str, method: str, temperature: float) -> str:
  """Returns the `model_id` of a method's answers, which is also the name of its file."""
  plain = re.sub(r"[^\w.=+-]", "_", f"{Path(model).name}-{method}")
  return f"{plain}-temp-{temperature:g}"


def answer_line(
  question: Question, record: Record, *, model_id: str, timestamp: float
) -> dict[str, Any]:
  """Returns the line of one question, from a record of `mtjax.evaluate.answers.run`.

  There is one choice. `decoding_steps`, `new_tokens` and `wall_time` have one number per turn;
  `accept_lengths` has the tokens of every forward pass, of all turns together: 1 for one that
  accepted no draft, and for the prompt's. Their sum is the number of new tokens.
  """
  choice = dict(
    index=0,
    turns=record["answers"],
    decoding_steps=[len(steps) for steps in record["steps"]],
    new_tokens=[len(tokens) for tokens in record["tokens"]],
    wall_time=record["turn_seconds"],
    accept_lengths=[length for steps in record["steps"] for length in steps],
  )
  identity = question.about["question_id"]
  return dict(
    question_id=identity,
    category=question.about["category"],
    answer_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{model_id}/{identity}").hex,
    model_id=model_id,
    choices=[choice],
    tstamp=timestamp,
  )


def write_answers(
  folder: str | Path,
  questions: Sequence[Question],
  records: Mapping[str, Sequence[Record]],
  *,
  model: str,
  temperature: float,
  timestamp: float,
) -> list[Path]:
  """Writes a file per method into `folder`, which is made if it is missing, and returns the paths.

  Lines have the order of the ids, as Spec-Bench sorts them. Files of an earlier run are replaced.
  """
  Path(folder).mkdir(parents=True, exist_ok=True)
  order = sorted(range(len(questions)), key=lambda at: questions[at].about["question_id"])
  paths = []
  for method, answers in records.items():
    model_id = model_identity(model, method, temperature)
    lines = (
      answer_line(questions[at], answers[at], model_id=model_id, timestamp=timestamp)
      for at in order
    )
    paths.append(Path(folder) / f"{model_id}.jsonl")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    paths[-1].write_text(text, encoding="utf-8")
  return paths
