"""A run of denoising as one HTML page that needs nothing else: canvases played pass by pass."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mtjax.display.short import counted
from mtjax.report.canvas.record import CanvasChange, CanvasRun, canvas_record, read_changes
from mtjax.report.canvas.spelling import spelled
from mtjax.report.history.page_text import PART, plain_sign, prompt_text
from mtjax.report.history.run_json import RecordedRun
from mtjax.report.html.frame import HtmlPage, html_settings, html_table, html_tiles, make_page
from mtjax.text import TextModel

_LEGEND = (
  '<p><small><span class="sample target" style="--s:0">decided early</span>'
  '<span class="sample target" style="--s:1">decided late</span> Point at a token, or go through '
  "them with the arrow keys, to see what each pass wrote there.</small></p>"
)


def canvas_page(run: CanvasRun, text: TextModel, *, title: str = "denoise") -> HtmlPage:
  """Returns the page of a run; a notebook shows it where a cell ends with it."""
  record = canvas_record(run, text.tokenizer)
  return canvas_page_of_record(dict(record, settings=dict(denoise=dict(transfer=title))))


def canvas_page_of_record(record: Mapping[str, Any]) -> HtmlPage:
  """Returns the page of what mtjax-decode wrote with --history of a method that denoises.

  Raises ValueError for another record.
  """
  run = _tokens_of(record)
  settings = dict(record.get("settings", {}))
  title = str(settings.get("denoise", {}).get("transfer", "denoise"))
  title += f" of {settings['model']}" if "model" in settings else ""
  body, data = [html_settings(settings)], []
  if not record.get("complete", True):
    body.insert(0, '<p class="warn">The run was stopped before its end.</p>')
  if "exactness" in record:
    reason = f": {record['reason']}" if record.get("reason") else ""
    body.append(f"<p>{escape(record['exactness'] + reason)}</p>")
  for row, canvas in enumerate(record["canvases"]):
    changes, num_passes = read_changes(canvas), int(record["num_passes"])
    states = _states(run, changes, canvas["length"])
    data.append(_row_data(changes, states, num_passes))
    if len(record["canvases"]) > 1:
      body.append(f"<h2>Row {row}</h2>")
    body.append(prompt_text(run, row))
    body += _row(f"t{row}", states, changes, num_passes)
    body.append(_table(run, changes))
  pieces = {token: run.piece(token) for token in run.pieces}
  return make_page(title, body, script="history.js", data=dict(texts=data, pieces=pieces))


# (pass, what the place shows from then on; None: a mask), first to last.
_States = list[tuple[int, str | None]]


def _tokens_of(record: Mapping[str, Any]) -> RecordedRun:
  """Returns what the tokens of a record look like, and its prompts."""
  if "canvases" not in record:
    raise ValueError("the run has no canvas: run it again with --history")
  return RecordedRun(
    history=[],
    pieces={int(token): text for token, text in record.get("pieces", {}).items()},
    title="denoise",
    special=frozenset(record.get("special", ())),
    parts={int(token): bytes.fromhex(part) for token, part in record.get("parts", {}).items()},
    prompts=record.get("prompts", ()),
  )


def _states(run: RecordedRun, changes: Sequence[CanvasChange], length: int) -> list[_States]:
  """Returns for every place what it shows, from which pass on."""
  states: list[_States] = [[] for _ in range(length)]
  pieces: list[bytes | None] = [None] * length
  for number in sorted({one.number for one in changes}):
    now = [one for one in changes if one.number == number]
    for one in now:
      pieces[one.place] = None if one.token is None else _bytes(run, one.token)
    for place, shown in enumerate(spelled(pieces)):
      text = None if shown is None else "".join(map(plain_sign, shown)) or PART
      is_new = any(one.place == place for one in now)
      if is_new or (states[place] and states[place][-1][1] != text):
        states[place].append((number, text))
  return states


def _bytes(run: RecordedRun, token: int) -> bytes:
  return run.parts.get(token, run.pieces.get(token, "").encode("utf-8", "replace"))


def _row_data(
  changes: Sequence[CanvasChange], states: Sequence[_States], num_passes: int
) -> dict[str, Any]:
  """Returns what the page's script reads of a row."""
  by_place: dict[int, list[tuple[int, int | None]]] = {}
  for one in changes:
    by_place.setdefault(one.place, []).append((one.number, one.token))
  shown = {place: each for place, each in enumerate(states) if each}
  return dict(changes=by_place, shown=shown, last=num_passes)


def _row(
  name: str, states: Sequence[_States], changes: Sequence[CanvasChange], num_passes: int
) -> Iterator[str]:
  yield (
    f'<div class="player" data-player="{name}" hidden><button type="button">Play</button>'
    f'<label for="{name}-pass">pass</label><input id="{name}-pass" type="range" min="0" '
    f'max="{num_passes}" value="{num_passes}"><output>{num_passes} of {num_passes}</output>'
    f'</div><div class="canvas" data-canvas="{name}" role="group" aria-label="the canvas">'
    f"{''.join(_element(place, each, num_passes) for place, each in enumerate(states))}</div>"
    f"{_LEGEND}"
  )
  last = {one.place: one.token for one in changes}
  decided = sum(token is not None for token in last.values())
  again = len(changes) - sum(one.token is not None for one in changes)
  passes = max((one.number for one in changes), default=0)
  yield html_tiles(
    (
      (f"{decided:,}", "tokens decided"),
      (f"{passes:,}", "passes"),
      (f"{decided / max(passes, 1):.2f}", "tokens per pass"),
      (f"{again:,}", counted(again, "time masked again", "times masked again").split(" ", 1)[1]),
    )
  )


def _element(place: int, states: _States, num_passes: int) -> str:
  """Returns the element of a place as it is in the end."""
  number, shown = states[-1] if states else (0, None)
  late = (number - 1) / max(num_passes - 1, 1)
  kind = "target open" if shown is None else "target"
  text = "_" if shown is None else shown
  return (
    f'<span class="t {kind}" role="button" data-entry="{place}" style="--s:{max(late, 0):.2f}">'
    f"{escape(text)}</span>"
  )


def _table(run: RecordedRun, changes: Sequence[CanvasChange]) -> str:
  """Returns a table of all that the passes wrote."""
  rows = [
    (str(one.number), str(one.place), "masked again" if one.token is None else run.piece(one.token))
    for one in changes
  ]
  table = html_table(("pass", "place", "token"), rows)
  return f"<section><details><summary>Passes</summary>{table}</details></section>"
