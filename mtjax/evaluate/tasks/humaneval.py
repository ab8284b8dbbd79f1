"""HumanEval infilling: a line or a span of a function is missing (2207.14255)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.data.pieces import encode_pieces
from mtjax.data.sources.text_files import read_records
from mtjax.data.tokenizers import Tokenizer
from mtjax.evaluate.tasks.examples import Example, cut, from_pieces
from mtjax.evaluate.tasks.protocol import Answer, Record, share
from mtjax.evaluate.tasks.sandbox import ProgramResult, SandboxLimits, run_program

_OWN = ("task_id", "prompt", "canonical_solution", "test", "entry_point")  # HumanEval's fields
_FILES = ("SingleLineInfilling", "MultiLineInfilling", "RandomSpanInfilling")


@dataclasses.dataclass(frozen=True)
class HumanEvalInfilling:
  """The task whose measure is pass@1: the function with its blank filled passes its tests.

  There is one answer per problem. The blank has as many tokens as the reference, which tells the
  model its length, as for every fixed-length infiller. The program is whole even if the model saw
  only a part of it. It is also recorded if the reference itself passes: it should, which shows that
  the sandbox works. Problems whose blank has no token or more than `max_tokens` are left out.
  """

  limits: SandboxLimits = SandboxLimits()
  temperature = 0.0

  def examples(self, path: str, tokenizer: Tokenizer, *, max_tokens: int) -> list[Example]:
    examples = []
    for record in read_problems(path):
      before, missing, after = (record[f] for f in ("prompt", "canonical_solution", "suffix"))
      if 0 < len(encode_pieces(tokenizer, [before, missing])[1]) <= max_tokens:
        pieces = [(before, False), (missing, True), (after, False)]
        examples.append(cut(from_pieces(record["task_id"], pieces, tokenizer, record), max_tokens))
    return examples

  def judge(self, example: Example, answer: Answer) -> dict[str, str]:
    outcomes = {}
    for name, middle in (
      ("outcome", answer.blank),
      ("reference", example.about["canonical_solution"]),
    ):
      outcomes[name] = str(run_program(program(example.about, middle), self.limits))
    return outcomes

  def summary(self, records: Sequence[Record]) -> dict[str, float]:
    return dict(
      pass_at_1=share(records, "outcome", ProgramResult.PASSED),
      timed_out=share(records, "outcome", ProgramResult.TIMED_OUT),
      reference_passes=share(records, "reference", ProgramResult.PASSED),
    )


def read_problems(path: str, fields: Sequence[str] = _OWN) -> list[dict[str, Any]]:
  """Returns all problems of a file.

  Raises ValueError for records of another form, also for those of HumanEval itself.
  """
  problems = []
  for number, record in read_records(path, fields):
    if not isinstance(record.get("suffix"), str):
      files = ", ".join(f"HumanEval-{name}.jsonl.gz" for name in _FILES)
      raise ValueError(
        f"{path}, line {number}: there is no suffix, so this is a problem of HumanEval itself, "
        f"without a blank. Give a file of humaneval_infilling: {files}"
      )
    problems.append(record)
  return problems


def program(record: Mapping[str, Any], middle: str) -> str:
  """Returns the function with `middle` in its blank, its tests, and the call that runs them."""
  function = record["prompt"] + middle + record["suffix"]
  return f"{function}\n{record['test']}\ncheck({record['entry_point']})\n"
