"""The tasks by name."""

from mtjax.data.sources.text_files import read_text
from mtjax.evaluate.tasks.countdown import Countdown, read_solved
from mtjax.evaluate.tasks.humaneval import HumanEvalInfilling, read_problems
from mtjax.evaluate.tasks.lambada import Lambada, read_passages
from mtjax.evaluate.tasks.protocol import Task
from mtjax.evaluate.tasks.sudoku import Sudoku, read_puzzles
from mtjax.evaluate.tasks.wikitext import WikitextMasked
from mtjax.models import check_causal
from mtjax.pretrained import load_pretrained

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
  """Reads a task's file, for which no model is needed.

  Raises ValueError for another name than NAMES, and FileNotFoundError or ValueError, naming the
  file and the line, for a file that is no file of the task or holds nothing.
  """
  if name not in _READ:
    raise ValueError(f"task {name!r} is not one of {', '.join(NAMES)}")
  if not _READ[name](path):
    raise ValueError(f"{path} holds nothing of {name}")


def get_task(name: str, *, judge: str = "target") -> Task:
  """One of NAMES; `judge`: the causal model of wikitext_masked. ValueError for another name."""
  if name == "wikitext_masked":
    loaded = load_pretrained(judge)
    check_causal(loaded.model, f"the judge {judge!r}")
    return WikitextMasked(loaded)
  if name not in _SIMPLE:
    raise ValueError(f"task {name!r} is not one of {', '.join(NAMES)}")
  return _SIMPLE[name]()


def training_texts(name: str, path: str, count: int, *, seed: int = 0) -> list[str]:
  """Texts to train on, none of them in the file: of the puzzles, which are made by rule."""
  makers = {"sudoku": Sudoku(), "countdown": Countdown()}
  if name not in makers:
    raise ValueError(f"training texts can be made of {' and '.join(makers)}, not of {name}")
  texts = makers[name].training_texts(path, seed=seed)
  return [next(texts) for _ in range(count)]
