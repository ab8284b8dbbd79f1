r"""MBPP: a short program is to be written from a sentence and three tests (2108.07732)."""

import dataclasses
from collections.abc import Sequence

from mtjax.data.sources.text_files import read_records
from mtjax.evaluate.answers.protocol import CHAT, TEXT, Question
from mtjax.evaluate.tasks.protocol import Record
from mtjax.evaluate.tasks.sandbox import ProgramResult, SandboxLimits, run_program

_DONE, _FENCE = "[DONE]", "\n```"
_TASKS = "text", "prompt"  # the sentence's field in the whole set, and in the sanitised one


@dataclasses.dataclass(frozen=True)
class Mbpp:
  """The task whose measure is pass@1: the program passes the three tests, in the sandbox.

  The prompt is that of the paper (2108.07732, section 4.1) without examples (0 shots), which
  `mbpp` of lm-evaluation-harness has three of: the sentence, the tests, and [BEGIN]. In the chat
  format it is the user's message, and the model's message begins with a code block. An answer ends
  at [DONE] or at the end of the code block. Files are those of the authors, mbpp.jsonl, or
  sanitized-mbpp.json as JSON lines.
  """

  limits: SandboxLimits = SandboxLimits()
  formats = (TEXT, CHAT)
  max_tokens = 256
  measure = "pass@1"
  convention = (
    "MBPP: 0 shots; the paper's prompt with the three tests (mbpp of lm-evaluation-harness has the "
    "same with 3 shots); an answer ends at [DONE]; the tests run in a sandbox."
  )

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    return (_FENCE, _DONE) if prompt_format == CHAT else (_DONE,)

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    questions = []
    for number, record in read_records(path, ("code",)):
      where = f"{path}, line {number}"
      tests = _tests(record, where)
      sentence = next((record[name] for name in _TASKS if isinstance(record.get(name), str)), "")
      if not sentence:
        raise ValueError(f'{where}: no sentence in "text" or "prompt" that says what to write')
      name = f"MBPP/{record.get('task_id', number)}"
      if name in [question.name for question in questions]:
        raise ValueError(f"{where}: there are two problems {name!r}")
      turn = (
        f"You are an expert Python programmer, and here is your task: {sentence} Your code should "
        f"pass these tests:\n\n" + "\n".join(tests)
      )
      begun = "```python\n" if prompt_format == CHAT else ""
      turn += "\n" if prompt_format == CHAT else "\n[BEGIN]\n"
      setup = _setup(record, where)
      questions.append(Question(name, (turn,), begun, dict(setup=setup, tests=tests)))
    return questions

  def judge(self, question: Question, answers: Sequence[str]) -> dict[str, str | bool]:
    parts = [question.about["setup"], answers[0], *question.about["tests"]]
    outcome = run_program("\n".join(parts) + "\n", self.limits)
    return dict(right=outcome is ProgramResult.PASSED, outcome=str(outcome))


def _tests(record: Record, where: str) -> list[str]:
  tests = record.get("test_list")
  if not isinstance(tests, list) or not tests or not all(isinstance(one, str) for one in tests):
    raise ValueError(f'{where}: "test_list" must be a list of tests, got {tests!r}')
  return tests


def _setup(record: Record, where: str) -> str:
  """Returns what runs before the answer: "test_setup_code", or "test_imports" line by line."""
  setup = record.get("test_setup_code", record.get("test_imports", ""))
  lines = [setup] if isinstance(setup, str) else setup
  if not isinstance(lines, list) or not all(isinstance(one, str) for one in lines):
    raise ValueError(f"{where}: the setup must be text or a list of texts, got {setup!r}")
  return "\n".join(lines)
