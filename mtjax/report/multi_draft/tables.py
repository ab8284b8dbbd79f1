"""Tables of multi-draft bounds: acceptance and gaps by number of drafts, temperature and text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtjax.report.cells import Cells

ALL = "all"
WITH, WITHOUT, PLUS = "with-replacement", "without-replacement", "greedy-plus-one"
# (column, scheme, rule): how drafts are chosen and who verifies them; no rule: the bound.
COLUMNS = (
  ("bound with", WITH, None),
  ("RRS with", WITH, "rrs_with"),
  ("K-SEQ", WITH, "kseq"),
  ("bound without", WITHOUT, None),
  ("RRS without", WITHOUT, "rrs_without"),
  ("greedy-plus-one", PLUS, "greedy_plus_one"),
  ("SpecHub", "pair", "spechub"),
  ("top n", "delta", "delta"),
)
_USUAL = 3  # drafts of the tables and pictures that show one number of them
_SAME = "the same"
# What the columns are: how drafts are chosen, the verifier, the paper.
_MEANINGS = {
  "bound with": ("n independent samples of q", "the best there can be", "2502.18779"),
  "RRS with": (_SAME, "`rrs_with`, recursive rejection sampling", "2305.09781"),
  "K-SEQ": (_SAME, "`kseq`", "2310.15141"),
  "bound without": ("n samples of q without replacement", "the best there can be", "2502.18779"),
  "RRS without": (_SAME, "`rrs_without`", "2402.12374"),
  "greedy-plus-one": (
    "the n - 1 most probable tokens of q, and one sample of the others",
    "`greedy_plus_one`",
    "2502.18779",
  ),
  "SpecHub": (
    "two: a sample of q and the most probable token, or that token and another sample",
    "`spechub`",
    "EMNLP 2024 main 1148",
  ),
  "top n": ("the n most probable tokens of q; nothing is sampled", "`delta`", "2406.16858"),
}


class Bounds:
  """Rows of `mtjax.evaluate.multi_draft.bounds.bounds`, by temperature, drafts, scheme and text."""

  def __init__(self, rows: Sequence[Mapping[str, Any]]):
    self._rows = {(r["text"], r["temperature"], r["drafts"], r["scheme"]): r for r in rows}
    self.texts = [text for text in dict.fromkeys(r["text"] for r in rows) if text != ALL]
    self.temperatures = list(dict.fromkeys(r["temperature"] for r in rows))
    self.drafts = list(dict.fromkeys(r["drafts"] for r in rows))
    self.shown = _USUAL if _USUAL in self.drafts else max(self.drafts)

  def row(
    self, temperature: float, drafts: int, scheme: str, text: str = ALL
  ) -> Mapping[str, Any] | None:
    """Returns the row, or None if the scheme does not allow this number of drafts."""
    return self._rows.get((text, temperature, drafts, scheme))

  def settings(self) -> Iterator[tuple[float, int]]:
    """Returns every temperature with every number of drafts."""
    for drafts in self.drafts:
      for temperature in self.temperatures:
        yield temperature, drafts


def main_table(bounds: Bounds) -> Cells:
  """Returns acceptance and gaps over all texts, a row per number of drafts and temperature."""
  rows = [
    (str(n), f"{temperature:g}", *_cells(bounds, temperature, n, ALL))
    for temperature, n in bounds.settings()
  ]
  return Cells("All texts", ("n", "temperature", *_header()), rows)


def columns_table() -> Cells:
  """Returns a table of the meanings of the columns."""
  rows = [(column, *_MEANINGS[column]) for column, _, _ in COLUMNS]
  return Cells("The columns", ("column", "drafts", "verifier", "paper"), rows)


def text_table(bounds: Bounds) -> Cells:
  """Returns acceptance and gaps of one number of drafts, by text."""
  rows = [
    (text, f"{temperature:g}", *_cells(bounds, temperature, bounds.shown, text))
    for text in bounds.texts
    for temperature in bounds.temperatures
  ]
  return Cells(f"By text, {bounds.shown} drafts", ("text", "temperature", *_header()), rows)


def lead_table(bounds: Bounds) -> Cells:
  """Returns how much more often greedy-plus-one is accepted than RRS without replacement."""
  rows = []
  for n in [n for n in bounds.drafts if n > 1]:  # one draft is the same for both
    leads = [bounds.row(t, n, PLUS)["lead"]["rrs_without"] for t in bounds.temperatures]
    rows.append((str(n), *(f"{mean:+.3f} ± {error:.3f}" for mean, error in leads)))
  header = ("n", *(f"temperature {temperature:g}" for temperature in bounds.temperatures))
  return Cells("Greedy-plus-one minus RRS without replacement, all texts", header, rows)


def _header():
  return [column if rule is None else f"{column} (gap)" for column, _, rule in COLUMNS]


def _cells(bounds: Bounds, temperature: float, drafts: int, text: str) -> list[str]:
  rows = [bounds.row(temperature, drafts, scheme, text) for _, scheme, _ in COLUMNS]
  reached = [
    row["rules"][rule]["acceptance"][0]
    for row, (_, _, rule) in zip(rows, COLUMNS, strict=True)
    if row and rule
  ]
  best = f"{max(reached):.3f}"
  return [_cell(row, rule, best) for row, (_, _, rule) in zip(rows, COLUMNS, strict=True)]


def _cell(row, rule, best) -> str:
  if row is None:
    return "-"
  if rule is None:
    return f"{row['bound'][0]:.3f}"
  accepted = f"{row['rules'][rule]['acceptance'][0]:.3f}"
  shown = f"**{accepted}**" if accepted == best else accepted
  return f"{shown} ({max(row['rules'][rule]['gap'][0], 0):.3f})"
