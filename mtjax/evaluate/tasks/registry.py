"""The tasks by name."""

from mtjax.data.sources.text_files import read_text
from mtjax.evaluate.generative import load_judge
from mtjax.evaluate.tasks.countdown import Countdown, read_solved
from mtjax.evaluate.tasks.humaneval import HumanEvalInfilling, read_problems
from mtjax.evaluate.tasks.lambada import Lambada, read_passages
from mtjax.evaluate.tasks.protocol import Task
from mtjax.evaluate.tasks.sudoku import Sudoku, read_puzzles
from mtjax.evaluate.tasks.wikitext import WikitextMasked

_SIMPLE = {
  "humaneval_infilling": HumanEvalInfilling,
  "sudoku": Sudoku,
  "countdown": Countdown,
  "lambada": Lambada,
}
NAMES = (*_SIMPLE, "wikitext_masked")

_READ = {
  "humaneval_infilling": read_problems,
  "sudoku": read_puzzles,
  "countdown": read_solved,
  "lambada": read_passages,
  "wikitext_masked": read_text,
}


def check_data(name: str, path: str) -> None:
  """Checks a task's file by reading it, for which no model is needed.

  Raises ValueError for a name that is not in NAMES, and FileNotFoundError or ValueError, naming the
  file and the line, for a file that does not belong to the task or is empty.
  """
  if name not in _READ:
    raise ValueError(f"task {name!r} is not one of {', '.join(NAMES)}")
  if not _READ[name](path):
    raise ValueError(f"{path} holds no problem of {name}")


def get_task(name: str, *, judge: str = "target") -> Task:
  """Returns one of NAMES; `judge` is the causal model of wikitext_masked.

  Raises ValueError for a name that is not in NAMES.
  """
  if name == "wikitext_masked":
    return WikitextMasked(load_judge(judge))
  if name not in _SIMPLE:
    raise ValueError(f"task {name!r} is not one of {', '.join(NAMES)}")
  return _SIMPLE[name]()


def training_texts(name: str, path: str, count: int, *, seed: int = 0) -> list[str]:
  """Returns texts to train on, none of them in the file, for tasks whose problems follow rules."""
  makers = {"sudoku": Sudoku(), "countdown": Countdown()}
  if name not in makers:
    raise ValueError(f"training texts can be made for {' and '.join(makers)}, not for {name}")
  texts = makers[name].training_texts(path, seed=seed)
  return [next(texts) for _ in range(count)]
