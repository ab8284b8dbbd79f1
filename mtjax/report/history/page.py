"""Recorded runs as one HTML page that needs nothing else: text, time and every round's tree."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mtjax.anysubset.infill import Infilling
from mtjax.decode.generation import Generation
from mtjax.report.canvas.page import canvas_page_of_record
from mtjax.report.history import page_decode, page_fill
from mtjax.report.history.page_time import time_section
from mtjax.report.history.run_json import (
  RecordedRun,
  check_history,
  history_record,
  prompt_tokens,
  read_record,
  runs_of,
)
from mtjax.report.html.frame import HtmlPage, html_settings, html_table, make_page
from mtjax.rounds.history import TreeRecord
from mtjax.text import Prompt, TextModel

_STOPPED = (
  '<p class="warn">The run was stopped before its end. This is what was finished before.</p>'
)


def page_of_record(record: Mapping[str, Any]) -> HtmlPage:
  """Returns the page of what a launcher wrote with a history: one run, a comparison or a fill.

  So too of canvases that were denoised. Raises ValueError for a record without a history.
  """
  if "canvases" in record:
    return canvas_page_of_record(record)
  runs = runs_of(record)
  settings = dict(record.get("settings", {}))
  above = [] if record.get("complete", True) else [_STOPPED]
  if "compared" in record:
    above.append(_comparison(record["compared"]))
    title = ", ".join(dict.fromkeys(run.title for run in runs))
  else:
    title = runs[0].title
  model = f" of {settings['model']}" if "model" in settings else ""
  return page(runs, title=f"{title}{model}", above=[*above, html_settings(settings)])


def page_of_file(path: str | Path) -> HtmlPage:
  """Returns the page of a file that mtjax-decode or mtjax-infill wrote with --history.

  Raises ValueError that names the file for anything else.
  """
  record = read_record(path)
  if "compared" in record:
    for run in (run for one in record["compared"] for run in one["runs"]):
      check_history(path, run)
  elif "canvases" not in record:
    check_history(path, record)
  try:
    return page_of_record(record)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def generation_page(
  generation: Generation, text: TextModel, prompts: Sequence[Prompt] = (), *, title: str = "decode"
) -> HtmlPage:
  """Returns the page of a generation with a history; a notebook shows it where a cell ends with it.

  `prompts`: those that it continues, to be shown above their rows. Raises ValueError without a
  history.
  """
  if generation.history is None:
    raise ValueError("the generation has no history: generate with history=True")
  ids = prompt_tokens(text.tokenizer, prompts)
  fields = history_record(generation.history, text.tokenizer, ids)
  return page_of_record(dict(fields, prompts=ids, settings=dict(method=title)))


def infilling_page(infilling: Infilling, text: TextModel, *, title: str = "fill") -> HtmlPage:
  """Returns the page of a filled text with a history, as `generation_page` does."""
  if infilling.history is None:
    raise ValueError("the filled text has no history: infill with history=True")
  fields = history_record(infilling.history, text.tokenizer, [infilling.tokens])
  known = dict(tokens=infilling.tokens, is_target=infilling.is_target)
  return page_of_record(dict(fields, **known, settings=dict(method=title)))


def page(
  runs: Sequence[RecordedRun], *, title: str | None = None, above: Sequence[str] = ()
) -> HtmlPage:
  """Returns the page of one run or of several; runs of one title share a tab.

  `above` is HTML between the heading and the runs. Raises ValueError without a run.
  """
  if not runs:
    raise ValueError("there is no run to show")
  titles = list(dict.fromkeys(run.title for run in runs))
  data: list[dict[str, Any]] = []
  body = [*above]
  if len(titles) > 1:
    tabs = "".join(
      f'<button type="button" role="tab" id="tab{at}" aria-controls="panel{at}">{escape(one)}'
      "</button>"
      for at, one in enumerate(titles)
    )
    body.append(f'<div class="tabs" role="tablist" hidden>{tabs}</div>')
  for at, one in enumerate(titles):
    if len(titles) > 1:
      body.append(f'<section role="tabpanel" id="panel{at}" aria-labelledby="tab{at}">')
      body.append(f"<h2>{escape(one)}</h2>")
    group = [run for run in runs if run.title == one]
    for number, run in enumerate(group, 1):
      heading = f"Prompt {number}" if len(group) > 1 else None
      body += _run(run, heading, data)
    body += ["</section>"] * (len(titles) > 1)
  pieces = {token: run.piece(token) for run in runs for token in run.pieces}
  data_of_page = dict(texts=data, pieces=pieces)
  return make_page(title or titles[0], body, script="history.js", data=data_of_page)


def _run(run: RecordedRun, heading: str | None, data: list[dict[str, Any]]) -> Iterator[str]:
  """Yields a run, and appends to `data` what the script needs of each of its rows."""
  if heading:
    yield f"<h2>{heading}</h2>"
  for row in range(run.rows):
    name, is_last = f"t{len(data)}", row == run.rows - 1
    if run.rows > 1:
      yield f"<h2>Row {row}</h2>"
    is_decode = any(isinstance(record.rows[row], TreeRecord) for record in run.history)
    if is_decode:
      data.append(page_decode.decode_data(run, row))
      yield from page_decode.decode_row(run, row, name)
      figures = [page_decode.acceptance_section(run, row)]
    else:
      data.append(page_fill.fill_data(run, row))
      yield from page_fill.fill_row(run, row, name)
      figures = []
    # All rows of a batch share their rounds' time.
    figures += [time_section(run.history)] * is_last
    yield f'<div class="columns">{"".join(figures)}</div>'
    if is_decode:
      yield from page_decode.rounds_section(run, row, name)
    else:
      yield page_fill.passes_section(run, row)


def _comparison(compared: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table of what was compared; a method's speed is relative to the first one's."""
  rows = [
    (
      one["name"],
      one["exactness"],
      f"{one['tokens_per_forward']:.2f}",
      f"{one['ms_per_token']:.2f}",
      f"{compared[0]['ms_per_token'] / one['ms_per_token']:.2f}x",
    )
    for one in compared
  ]
  header = ("method", "exactness", "tokens per forward pass", "ms per token", "speed")
  return html_table(header, rows) + (
    "<p><small>Times are those of runs whose history is kept, which are slower.</small></p>"
  )
