"""The tasks that a model answers in writing, by name."""

from mtjax.evaluate.answers.code.humaneval import HumanEval
from mtjax.evaluate.answers.code.mbpp import Mbpp
from mtjax.evaluate.answers.gsm8k import Gsm8k
from mtjax.evaluate.answers.last_word import LastWord
from mtjax.evaluate.answers.mtbench import MtBench
from mtjax.evaluate.answers.protocol import AnswerTask
from mtjax.evaluate.answers.specbench import SpecBench

TASKS: dict[str, AnswerTask] = {
  "humaneval": HumanEval(),
  "mbpp": Mbpp(),
  "gsm8k": Gsm8k(),
  "lambada_greedy": LastWord(),
  "mtbench": MtBench(),
  "specbench": SpecBench(),
}
