"""A recorded run as one HTML page that needs nothing else: text, time and every round's tree."""

import statistics
from collections.abc import Iterator
from html import escape

from mtjax.report.history.drawing import Box, Drawing, Kind, draw
from mtjax.report.history.picture import (
  LABELS,
  STYLES,
  counted,
  describe,
  milliseconds,
  time_line,
)
from mtjax.report.history.run_json import RecordedRun
from mtjax.rounds.history import PassRecord, RoundRecord, TreeRecord

_CHARACTER, _LINE, _MARGIN = 8.5, 30.0, 8.0  # pixels
_STAGES = ("#7a5fb5", "#2b5fa8", "#2a9d8f", "#c9761b", "#b0413e")
_BAR = 360  # pixels of a round that takes three times as long as most

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
  color: #222; background: #fff; }}
.text {{ font: 15px/1.9 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }}
.text span {{ border-radius: 4px; padding: 2px 1px; }}
.ROOT, .BONUS {{ background: #fdebd3; }} .ACCEPTED {{ background: #cfe0f5; }}
.text .first {{ border-left: 2px solid #4a4a55; }}
.text a {{ color: inherit; text-decoration: none; }}
summary {{ cursor: pointer; display: flex; gap: 1em; align-items: center; }}
summary .what {{ flex: 0 0 27em; }} details {{ border-top: 1px solid #e4e4ea; padding: .2em 0; }}
.bar {{ display: flex; height: 12px; max-width: 360px; overflow: hidden; }}
.bar i {{ flex: none; height: 12px; }}
.key i {{ display: inline-block; width: 12px; height: 12px; margin: 0 .4em 0 1.2em; }}
.scroll {{ overflow-x: auto; }} small, .key {{ color: #4a4a55; }}
td {{ padding: 0 1em 0 0; }} td.token {{ font-family: ui-monospace, monospace; }}
</style></head><body>
"""

# A token of the text leads to its round, which opens.
_TAIL = """<script>
const show = () => {
  const round = document.getElementById(location.hash.slice(1));
  if (round) { round.open = true; round.scrollIntoView(); }
};
addEventListener("hashchange", show);
show();
</script></body></html>
"""


def page(run: RecordedRun) -> str:
  """Returns the page: for every row its text, each token by who proposed it, and its rounds."""
  out = [_HEAD.format(title=escape(run.title)), f"<h1>{escape(run.title)}</h1>", _key(run)]
  for row in range(run.rows):
    out += _row(run, row)
  return "\n".join([*out, _TAIL])


def _key(run: RecordedRun) -> str:
  colors = _stage_colors(run)
  stages = "".join(f'<i style="background:{c}"></i>{escape(s)}' for s, c in colors.items())
  rounds = f"{len(run.history)} rounds, the prefill among them"
  total = milliseconds(sum(sum(one.seconds.values()) for one in run.history))
  return f'<p class="key">{rounds}, {total} without compilation. Time by stage:{stages}</p>'


def _row(run: RecordedRun, row: int) -> Iterator[str]:
  if run.rows > 1:
    yield f"<h2>Row {row}</h2>"
  if any(isinstance(one.rows[row], TreeRecord) for one in run.history):
    yield f'<p class="text">{"".join(_text(run, row))}</p>'
    yield "<p><small>Blue: a draft that was accepted. Orange: the target's own token. A line marks "
    yield "where a round begins. Open a round to see its tree; a number is a draft's probability "
    yield "under its parent, where the drafter sampled.</small></p>"
  longest = _scale([sum(one.seconds.values()) for one in run.history])
  for number, record in enumerate(run.history):
    found = record.rows[row]
    if isinstance(found, TreeRecord):
      yield _round(run, record, f"r{row}-{number}", describe_short(run, number, row), longest,
                   svg(draw(found, run.piece)))  # fmt: skip
    elif found:
      decided = sum(len(one.entries) for one in found)
      tokens, passes = counted(decided, "token", "tokens"), counted(len(found), "pass", "passes")
      what = f"round {number}: {tokens} in {passes}"
      table = "".join(_pass(run, one) for one in found)
      yield _round(run, record, f"r{row}-{number}", what, longest, f"<table>{table}</table>")


def _scale(totals: list[float]) -> float:
  """Returns the seconds of a whole bar: one slow round, as the first ones are, hides no other."""
  return min(max(totals), 3 * statistics.median(totals))


def describe_short(run: RecordedRun, number: int, row: int) -> str:
  """Returns `describe` without the run's name."""
  return describe(run, number, row).removeprefix(f"{run.title}, ")


def _text(run: RecordedRun, row: int) -> Iterator[str]:
  for number, record in enumerate(run.history):
    tree = record.rows[row]
    if not isinstance(tree, TreeRecord):
      continue
    accepted = len(tree.path) - 1
    for place, token in enumerate(tree.emitted):
      kind = Kind.ACCEPTED if place < accepted else Kind.BONUS
      first = "" if place else " first"
      piece = escape(run.pieces.get(token, run.piece(token)))
      yield (
        f'<a href="#r{row}-{number}"><span class="{kind.name}{first}" '
        f'title="round {number}">{piece}</span></a>'
      )


def _round(run, record: RoundRecord, anchor: str, what: str, longest: float, inner: str) -> str:
  colors = _stage_colors(run)
  bars = "".join(
    f'<i style="background:{colors[name]};width:{_BAR * value / longest:.1f}px"></i>'
    for name, value in record.seconds.items()
  )
  times = escape(time_line(record.seconds))
  return (
    f'<details id="{anchor}"><summary><span class="what">{escape(what)}</span>'
    f'<span class="bar" title="{times}">{bars}</span></summary>'
    f'<small>{times}</small><div class="scroll">{inner}</div></details>'
  )


def _pass(run: RecordedRun, one: PassRecord) -> str:
  rows = zip(one.entries, one.tokens, one.log_probs, one.drafted, strict=True)
  return "".join(
    f'<tr><td>pass {one.number}</td><td>entry {entry}</td><td class="token">'
    f"{escape(run.piece(token))}</td><td>log p = {log_prob:.2f}</td>"
    f"<td>{'accepted draft' if drafted else 'own token of the pass'}</td></tr>"
    for entry, token, log_prob, drafted in rows
  )


def _stage_colors(run: RecordedRun) -> dict[str, str]:
  names = dict.fromkeys(name for record in run.history for name in record.seconds)
  # The prefill comes first and once; the others have the first colours.
  order = [name for name in names if name != "prefill"]
  return {"prefill": "#9a9aa5"} | {n: _STAGES[i % len(_STAGES)] for i, n in enumerate(order)}


def svg(drawing: Drawing) -> str:
  """Returns a tree as an SVG element."""

  def at(x: float, y: float) -> tuple[float, float]:
    return _MARGIN + x * _CHARACTER, _MARGIN + (y + 0.5) * _LINE

  width = drawing.width * _CHARACTER + 2 * _MARGIN
  height = (drawing.height + 1) * _LINE + 2 * _MARGIN
  out = [
    f'<svg width="{width:.0f}" height="{height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg"'
    ' font-family="ui-monospace, monospace" font-size="13">'
  ]
  # What is accepted lies above what is not.
  for line in sorted(drawing.lines, key=lambda line: line.end.kind is not Kind.REFUSED):
    (x0, y0), (x1, y1) = at(line.start.right, line.start.y), at(line.end.x, line.end.y)
    middle = x0 + 0.18 * (at(line.end.x, 0)[0] - x0)
    _, color, style = STYLES[line.end.kind]
    thick = 1 if line.end.kind is Kind.REFUSED else 2
    dashes = ' stroke-dasharray="5 3"' if style == "dashed" else ""
    path = f"M{x0:.1f} {y0:.1f}H{middle:.1f}V{y1:.1f}H{x1:.1f}"
    out.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{thick}"{dashes}/>')
  out += [_svg_box(box, *at(box.x, box.y)) for box in drawing.boxes]
  return "".join([*out, "</svg>"])


def _svg_box(box: Box, x: float, y: float) -> str:
  face, edge, style = STYLES[box.kind]
  width, height = box.width * _CHARACTER, 0.62 * _LINE
  dashes = ' stroke-dasharray="4 3"' if style == "dashed" else ""
  color = "#8a8a94" if box.kind is Kind.REFUSED else "#000"
  # The text keeps to its box in whatever monospaced font there is.
  length = max(width - 0.9 * _CHARACTER, 1)
  note = ""
  if box.note:
    note = (
      f'<text x="{x - 4:.1f}" y="{y - 4:.1f}" font-size="9" text-anchor="end" fill="#4a4a55">'
      f"{escape(box.note)}</text>"
    )
  return (
    f'<g><title>{escape(LABELS[box.kind])}</title><rect x="{x:.1f}" y="{y - height / 2:.1f}" '
    f'width="{width:.1f}" height="{height:.1f}" rx="4" fill="{face}" stroke="{edge}"{dashes}/>'
    f'<text x="{x + width / 2:.1f}" y="{y:.1f}" text-anchor="middle" '
    f'dominant-baseline="central" fill="{color}" textLength="{length:.1f}" '
    f'lengthAdjust="spacingAndGlyphs">{escape(box.text)}</text>{note}</g>'
  )
