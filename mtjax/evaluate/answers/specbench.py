"""Questions of Spec-Bench, of one or two turns (2401.07851), for measurements of speed."""

import dataclasses
from collections.abc import Sequence

from mtjax.data.sources.text_files import read_records
from mtjax.evaluate.answers.mtbench import turn_stop, turns_of
from mtjax.evaluate.answers.protocol import CHAT, TEXT, Question


@dataclasses.dataclass(frozen=True)
class SpecBench:
  """The task whose answers are timed: 480 questions of six kinds, MT-bench's 80 among them.

  The second turn follows the model's own answer to the first one. The conversation is in the
  model's chat template, where Spec-Bench has that of Vicuna for every model; in plain text it is
  that of `MtBench`. `mtjax.evaluate.answers.specbench_file` writes the answers as Spec-Bench does.
  """

  formats = (CHAT, TEXT)
  max_tokens = 1024  # Spec-Bench's default
  measure = None
  convention = "Spec-Bench: all turns, in the model's chat template; its measure is the speed."

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    return turn_stop(prompt_format)

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    questions: dict[int, Question] = {}
    for number, record in read_records(path, ("category",)):
      where, identity = f"{path}, line {number}", record.get("question_id")
      if not isinstance(identity, int) or isinstance(identity, bool):
        raise ValueError(f'{where}: "question_id" must be a whole number, got {identity!r}')
      if identity in questions:
        raise ValueError(f"{where}: there are two questions {identity}")
      about = dict(question_id=identity, category=record["category"])
      turns = turns_of(record, where, prompt_format)
      questions[identity] = Question(f"question {identity}", turns, about=about)
    return list(questions.values())

  def judge(self, question: Question, answers: Sequence[str]) -> dict[str, bool]:
    return {}
