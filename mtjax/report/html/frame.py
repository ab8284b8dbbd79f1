"""One HTML page that needs no other file and reads nothing from a network.

The style of all pages is mtjax/assets/pages/page.css. A page's script is one of the files beside
it; the page's policy lets the browser run this script and no other, so that a token which is HTML
by mistake is text at worst.
"""

import base64
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_FRAME_HEIGHT = 720  # pixels of a page in a notebook


@dataclasses.dataclass(frozen=True)
class HtmlPage:
  """A page as text. A notebook whose cell ends with it shows it, in a frame of its own."""

  text: str

  def __str__(self) -> str:
    return self.text

  def save(self, path: str | Path) -> None:
    """Writes the page to a file, which any browser opens."""
    Path(path).write_text(self.text, encoding="utf-8")

  def _repr_html_(self) -> str:
    return (
      f'<iframe srcdoc="{escape(self.text)}" sandbox="allow-scripts" '
      f'style="width:100%;height:{_FRAME_HEIGHT}px;border:0"></iframe>'
    )


def make_page(
  title: str, body: Iterable[str], *, script: str | None = None, data: Any = None
) -> HtmlPage:
  """Returns the page with `title` as its heading and the parts of `body`, which are HTML, below.

  `script`: the name of a file in mtjax/assets/pages that runs when the page is open. `data`: what
  JSON can hold; the script reads it from the element of the id "data".
  """
  policy, tail = _POLICY, ""
  if data is not None:
    tail += f'<script type="application/json" id="data">{_json(data)}</script>\n'
  if script is not None:
    code = f"\n{_asset(script)}"
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy += f"; script-src 'sha256-{digest}'"
    tail += f"<script>{code}</script>\n"
  head = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    f"<title>{escape(title)}</title><style>\n{_asset('page.css')}</style></head>\n<body><main>\n"
    f"<h1>{escape(title)}</h1>\n"
  )
  return HtmlPage("\n".join([head, *body, f"</main>\n{tail}</body></html>\n"]))


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, raw: int = 0) -> str:
  """Returns a table whose first column is text and whose others are numbers.

  Cells are text, but for the last `raw` of each row, which are HTML.
  """
  columns = len(header)

  def line(cells, tag):
    shown = (cell if at >= columns - raw and tag == "td" else escape(cell)
             for at, cell in enumerate(cells))  # fmt: skip
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in shown)}</tr>"

  body = "".join(line(row, "td") for row in rows)
  return (
    f'<div class="scroll"><table><thead>{line(header, "th")}</thead>'
    f"<tbody>{body}</tbody></table></div>"
  )


def html_tiles(tiles: Sequence[tuple[str, str]]) -> str:
  """Returns numbers with what they count, side by side."""
  inner = "".join(
    f"<div><b>{escape(number)}</b><small>{escape(label)}</small></div>" for number, label in tiles
  )
  return f'<div class="tiles">{inner}</div>'


def html_figure(figure: Any, description: str) -> str:
  """Returns a matplotlib figure as an image within the page."""
  file = io.BytesIO()
  figure.savefig(file, format="png", dpi=120)
  coded = base64.b64encode(file.getvalue()).decode()
  return f'<img alt="{escape(description)}" src="data:image/png;base64,{coded}">'


def html_settings(settings: dict[str, Any]) -> str:
  """Returns settings by name, one per line, in an element that is opened by a click."""
  if not settings:
    return ""
  rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in settings.items()]
  return f"<details><summary>Settings</summary>{html_table(('setting', 'value'), rows)}</details>"


def _json(data: Any) -> str:
  # Within a script element "<" could end it, or begin a comment.
  return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
  return (resources.files("mtjax") / "assets" / "pages" / name).read_text(encoding="utf-8")
