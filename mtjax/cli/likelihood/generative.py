r"""The part of mtjax/cli/evaluate.py that judges texts which any system wrote.

mtjax-evaluate --task=generative_perplexity --data=mine.txt,answers.jsonl --judge=target,smollm2

A .txt file is one text; a .jsonl file has one record per line, with a text in "text", "answer",
"answers" (a list), "completion" or "output", and perhaps a "prompt", or "prompts" (one for each
text), which is read before the text and counts in no figure. Files that --records wrote have a row
for each of their methods.

Every row has the entropy of the tokens beside the perplexity: text that repeats itself has a low
perplexity, and then its entropy is low, too. Both are of the judge's tokens. A row whose texts are
all empty has no figures. All judges are loaded before the first one judges.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mtjax.cli.running import progress, results_file

if TYPE_CHECKING:
  from mtjax.evaluate.generative import JudgedText

TASK = "generative_perplexity"
# Title, figure and format of each column of the table.
_COLUMNS = (
  ("gen. perplexity", "perplexity", "{:.1f}"),
  ("bits per byte", "bits_per_byte", "{:.3f}"),
  ("entropy", "entropy", "{:.2f}"),
  ("texts", "texts", "{:,}"),
  ("tokens", "tokens", "{:,}"),
)


def run(
  paths: Sequence[str],
  judges: Sequence[str],
  *,
  limit: int | None,
  output: str | None,
  results_path: str | None,
) -> None:
  """Judges the texts of files by each judge; prints a table and writes what is wanted."""
  from mtjax.evaluate.generative import judge_texts, load_judge
  from mtjax.evaluate.samples import Sample, read_samples
  from mtjax.evaluate.tasks.run import spread
  from mtjax.report import results
  from mtjax.report.cells import Cells

  groups: dict[str, list[Sample]] = {}
  for path in paths:
    for name, samples in read_samples(path).items():
      if name in groups:
        raise ValueError(f"two files are named {name!r}: give them other names")
      groups[name] = spread(samples, limit)
  loaded = {}
  for judge in judges:
    progress(f"loading the judge {judge}")
    loaded[judge] = load_judge(judge)
  records, lines = {}, []
  settings = dict(data=list(paths), judge=list(judges), limit=limit)
  with results_file(output) as write:
    for judge in judges:
      records[judge] = {}
      for name, samples in groups.items():
        progress(f"judging {len(samples)} texts of {name} by {judge}")
        texts, prompts = [one.text for one in samples], [one.prompt for one in samples]
        judged = judge_texts(loaded[judge], texts, prompts)
        figures = _figures(judged)
        lines.append(
          (name, judge, *(_shown(figures[figure], form) for _, figure, form in _COLUMNS))
        )
        records[judge][name] = dict(figures, judged=[dataclasses.asdict(one) for one in judged])
        write(dict(settings=settings, texts=records))
  header = ("texts of", "judge", *(title for title, _, _ in _COLUMNS))
  table = Cells("Generative perplexity, and entropy in bits per token", header, lines)
  Console(file=sys.stdout, width=110).print(table.for_terminal())
  results.write(
    results_path,
    TASK,
    tables=[table],
    rows=records,
    units=dict(entropy="bits per token of the judge", bits_per_byte="bits per byte"),
    settings=settings,
  )


def _figures(judged: "Sequence[JudgedText]") -> dict[str, Any]:
  """Returns the figures of a row; those of `TextQuality` are None if no text has a token."""
  from mtjax.evaluate.generative import TextQuality

  tokens = sum(one.tokens for one in judged)
  if not tokens:
    names = [field.name for field in dataclasses.fields(TextQuality)]
    return dict.fromkeys(names, None) | dict(texts=len(judged), tokens=0)
  return dict(dataclasses.asdict(TextQuality.of(judged)), tokens=tokens)


def _shown(value: float | None, form: str) -> str:
  return "-" if value is None else form.format(value)
