"""The report of answered tasks: their tables, figures and notes, as far as a run has come."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtjax.evaluate.answers.methods import REFERENCE
from mtjax.evaluate.answers.protocol import AnswerTask
from mtjax.report import results
from mtjax.report.answers.tables import quality_table
from mtjax.report.cells import Cells

_TIMING = (
  "Tokens per second are of one pass with several rows at once, and other work may have run on the "
  "machine. They do not compare methods; the benchmark of speculative decoding does."
)
_UNITS = dict(
  score="share of questions",
  tokens="per question",
  tokens_per_second="tokens/s",
  entropy="bits per token of the judge",
)


class QualityReport:
  """What is known of a run so far. `exactness` is that of each method, in words.

  `reference` is the method whose text the others are compared with.
  """

  def __init__(
    self, settings: Mapping[str, Any], exactness: Mapping[str, str], reference: str = REFERENCE
  ):
    self._reference = reference
    self.tables: list[Cells] = []
    self.ties: list[str] = []
    self.errors: list[str] = []
    self._settings, self._exactness = settings, exactness
    self._rows: dict[str, Any] = {}
    self._conventions: list[str] = []

  def add(
    self,
    name: str,
    title: str,
    task: AnswerTask,
    figures: Mapping[str, Mapping[str, Any]],
    *,
    ties: Sequence[str] = (),
    errors: Sequence[str] = (),
  ) -> None:
    """Adds a task: figures of `mtjax.evaluate.answers.summary` by method, and differing texts."""
    self.tables.append(
      quality_table(title, task.measure, figures, self._exactness, reference=self._reference)
    )
    self._rows[name] = figures
    self._conventions.append(task.convention)
    self.ties += [f"{name}: {tie}" for tie in ties]
    self.errors += [f"{name}: {error}" for error in errors]

  def record(self) -> dict[str, Any]:
    """Returns settings, figures and differences, as JSON values."""
    return dict(settings=self._settings, summaries=self._rows, ties=self.ties, errors=self.errors)

  def write(self, path: str | Path | None, *, complete: bool) -> None:
    """Writes a results file, as `mtjax.report.results.write` does."""
    results.write(
      path,
      "quality",
      tables=self.tables,
      rows=self._rows,
      units=_UNITS,
      rounds=1,
      settings=self._settings,
      notes=[*self._conventions, _TIMING, *self.ties, *self.errors],
      complete=complete,
    )
