r"""HumanEval: a function is to be written from its head and docstring (2107.03374)."""

import dataclasses
from collections.abc import Sequence

from mtjax.data.sources.text_files import read_records
from mtjax.evaluate.answers.protocol import CHAT, TEXT, Question
from mtjax.evaluate.tasks.humaneval import program
from mtjax.evaluate.tasks.sandbox import ProgramResult, SandboxLimits, run_program

_FIELDS = ("task_id", "prompt", "test", "entry_point")
# The five of 2107.03374, section 3.2, after which a model writes another function or a statement.
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_FENCE = "\n```"


@dataclasses.dataclass(frozen=True)
class HumanEval:
  """The task whose measure is pass@1: the completed function passes its tests, in the sandbox.

  There are no examples in the prompt (0 shots) and one answer per problem. The prompt is the
  function's beginning as plain text, for chat models too: `humaneval` of lm-evaluation-harness, as
  in the paper. With the chat format it is the request of `humaneval_instruct`, and the model's
  message begins with a code block that holds the function's beginning, which the model continues up
  to the end of the block. A small model may close it at once, as the block in the request ends
  there, so it is not the default. In both, white space around the beginning is removed, as in
  bigcode-evaluation-harness: a tokenizer may join the end of a line with the indentation of the
  next one, and a prompt that ends in between is unusual text.
  """

  limits: SandboxLimits = SandboxLimits()
  formats = (TEXT, CHAT)
  max_tokens = 512
  measure = "pass@1"
  convention = (
    "HumanEval: 0 shots; the beginning of the function as plain text (humaneval of "
    "lm-evaluation-harness; in the chat format its humaneval_instruct), without white space at its "
    "ends as in bigcode-evaluation-harness; stop strings of 2107.03374; the tests run in a sandbox."
  )

  def stop(self, prompt_format: str) -> tuple[str, ...]:
    return (*STOP, _FENCE) if prompt_format == CHAT else STOP

  def questions(self, path: str, prompt_format: str) -> list[Question]:
    questions = []
    for number, record in read_records(path, _FIELDS):
      if "suffix" in record:
        raise ValueError(
          f"{path}, line {number}: the problem has a suffix, so it is one of humaneval_infilling: "
          "give HumanEval.jsonl.gz, or --task=humaneval_infilling"
        )
      if record["task_id"] in [question.name for question in questions]:
        raise ValueError(f"{path}, line {number}: there are two problems {record['task_id']!r}")
      about = {**record, "prompt": record["prompt"].strip(), "suffix": ""}
      turns, begun = (about["prompt"],), ""
      if prompt_format == CHAT:
        turns = (
          "Write a solution to the following problem and make sure that it passes the tests:\n"
          f"```python\n{about['prompt']}\n```\n",
        )
        begun = f"Here is the completed function:\n```python\n{about['prompt']}"
      questions.append(Question(record["task_id"], turns, begun, about))
    return questions

  def judge(self, question: Question, answers: Sequence[str]) -> dict[str, str | bool]:
    outcome = run_program(program(question.about, answers[0]), self.limits)
    return dict(right=outcome is ProgramResult.PASSED, outcome=str(outcome))
