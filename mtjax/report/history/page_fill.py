"""The part of a page that shows a fill: the canvas filling in, pass by pass."""

import math
from collections.abc import Iterator
from typing import Any

from mtjax.report.history.page_text import spellings, token_element
from mtjax.report.history.run_json import RecordedRun
from mtjax.report.html.frame import html_table, html_tiles
from mtjax.rounds.history import PassRecord

_LEGEND = (
  '<p><small><span class="sample target" style="--s:0">decided early</span>'
  '<span class="sample target" style="--s:1">decided late</span>'
  '<span class="sample target draft" style="--s:0.5">accepted draft</span> '
  "Text without colour is context. Point at a token, or go through them with the arrow keys, to "
  "see its pass and probability.</small></p>"
)


def passes_of(run: RecordedRun, row: int) -> list[PassRecord]:
  """Returns the passes of a row, first to last; none for a decode."""
  rows = [record.rows[row] for record in run.history]
  return [one for passes in rows if isinstance(passes, tuple) for one in passes]


def fill_row(run: RecordedRun, row: int, name: str) -> Iterator[str]:
  """Yields the HTML of a fill; `name` is unique in the page."""
  passes = passes_of(run, row)
  decided = sum(len(one.entries) for one in passes)
  if run.canvas:
    yield (
      f'<div class="player" data-player="{name}" hidden><button type="button">Play</button>'
      f'<label for="{name}-pass">pass</label><input id="{name}-pass" type="range" min="0" '
      f'max="{len(passes)}" value="{len(passes)}"><output>{len(passes)} of {len(passes)}</output>'
      f'</div><div class="canvas" data-canvas="{name}" role="group" aria-label="the text">'
      f"{''.join(_canvas(run, passes))}</div>{_LEGEND}"
    )
  drafted = sum(sum(one.drafted) for one in passes)
  tiles = (
    (f"{decided:,}", "tokens filled in"),
    (f"{len(passes):,}", "forward passes"),
    (f"{decided / max(len(passes), 1):.2f}", "tokens per forward pass"),
    (f"{drafted:,}", "accepted drafts"),
  )
  yield html_tiles(tiles)


def passes_section(run: RecordedRun, row: int) -> str:
  """Returns a table of all decided tokens, by pass."""
  rows = [
    (str(one.number), str(entry), run.piece(token), f"{math.exp(log_prob):.3g}",
     f"{log_prob:.2f}", "accepted draft" if drafted else "own token of the pass")
    for one in passes_of(run, row)
    for entry, token, log_prob, drafted in zip(
      one.entries, one.tokens, one.log_probs, one.drafted, strict=True
    )
  ]  # fmt: skip
  header = ("pass", "entry", "token", "p", "log p", "proposed by")
  return f"<section><h3>Passes</h3>{html_table(header, rows)}</section>"


def fill_data(run: RecordedRun, row: int) -> dict[str, Any]:
  """Returns what the page's script reads of a fill: the pass of each entry and what it decided."""
  return dict(
    passes={
      entry: [one.number, float(f"{math.exp(log_prob):.3g}"), int(drafted)]
      for one in passes_of(run, row)
      for entry, log_prob, drafted in zip(one.entries, one.log_probs, one.drafted, strict=True)
    },
    tokens=run.canvas,
  )


def _canvas(run: RecordedRun, passes: list[PassRecord]) -> Iterator[str]:
  decided = {entry: (one.number, drafted) for one in passes
             for entry, drafted in zip(one.entries, one.drafted, strict=True)}  # fmt: skip
  is_open = [aim and at not in decided for at, aim in enumerate(run.is_target)]
  # What an open entry holds is no text.
  tokens = [-1 if hidden else token for token, hidden in zip(run.canvas, is_open, strict=True)]
  for entry, (token, text) in enumerate(zip(tokens, spellings(run, tokens), strict=True)):
    number, drafted = decided.get(entry, (0, False))
    if not run.is_target[entry]:
      yield token_element(run, token, text, "") if token in run.special else text
    elif is_open[entry]:
      yield '<span class="t target open" role="button">_</span>'
    else:
      late = (number - 1) / max(len(passes) - 1, 1)
      yield token_element(
        run, token, text, f"target{' draft' if drafted else ''}",
        f' role="button" data-entry="{entry}" style="--s:{late:.2f}"',
      )  # fmt: skip
