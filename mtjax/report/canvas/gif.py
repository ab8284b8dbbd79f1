"""A canvas filling in, as an animated picture: every token has its place from the beginning."""

import base64
import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtjax.data.tokenizers import Tokenizer
from mtjax.report.canvas.layout import CanvasLayout, Cell, lay_out
from mtjax.report.canvas.record import CanvasRun
from mtjax.report.canvas.spelling import spelled_tokens
from mtjax.report.filling import pass_color

_COLUMNS = 72
_SIZE, _LINE, _MARGIN = 15, 23, 14  # pixels
_PAGE, _PROMPT, _BOX, _NEW, _DIM = "#ffffff", "#6a717c", "#d5d9e0", "#fff1c9", "#59606b"
_PER_PASS, _HOLD = 140, 2500  # milliseconds


@dataclasses.dataclass(frozen=True)
class CanvasGif:
  """An animated GIF. A notebook whose cell ends with it shows it."""

  data: bytes

  def save(self, path: str | Path) -> None:
    """Writes the picture to a file."""
    Path(path).write_bytes(self.data)

  def _repr_html_(self) -> str:
    code = base64.b64encode(self.data).decode()
    return f'<img alt="a canvas filling in" src="data:image/gif;base64,{code}">'


def check_gif(path: str | Path) -> None:
  """Raises ValueError for a file that is no .gif, and ModuleNotFoundError without Pillow."""
  if Path(path).suffix.lower() != ".gif":
    raise ValueError(f"an animated picture is a .gif, by its suffix: got {str(path)!r}")
  _font()


def save_gif(path: str | Path, run: CanvasRun, tokenizer: Tokenizer) -> None:
  """Writes `canvas_gif` to a file."""
  canvas_gif(run, tokenizer).save(path)


def canvas_gif(run: CanvasRun, tokenizer: Tokenizer) -> CanvasGif:
  """Returns the canvases of all rows, one picture per pass; the last one stays for a while.

  Masks are boxes as wide as what stands there in the end; tokens have the colour of their pass, and
  those of the newest pass a light ground. Raises ModuleNotFoundError, naming the extra, without
  Pillow.
  """
  frames = list(_pictures(run, tokenizer))
  file = io.BytesIO()
  frames[0].save(
    file, format="GIF", save_all=True, append_images=frames[1:], loop=0, disposal=1,
    duration=[_PER_PASS] * (len(frames) - 1) + [_HOLD],
  )  # fmt: skip
  return CanvasGif(file.getvalue())


def _font() -> Any:
  """Returns the monospaced font that matplotlib brings."""
  try:
    import matplotlib
    from PIL import ImageFont
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "pictures need matplotlib and its Pillow: pip install 'mtjax[viz]'"
    ) from error
  path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
  # Characters stand one by one: the other engine lays out lines, and refuses some of them.
  return ImageFont.truetype(str(path), _SIZE, layout_engine=ImageFont.Layout.BASIC)


def _pictures(run: CanvasRun, tokenizer: Tokenizer) -> Iterator[Any]:
  """Yields a picture for each frame."""
  from PIL import Image, ImageDraw

  font = _font()
  width = round(font.getlength("M"))
  layouts = _layouts(run, tokenizer)
  lines = sum(layout.lines + 1 for layout in layouts) + 1
  size = (_COLUMNS * width + 2 * _MARGIN, lines * _LINE + 2 * _MARGIN)
  last = max(1, *(at for row in run.frames[-1].decided_at for at in row))
  before = run.frames[0]
  for frame in run.frames:
    image = Image.new("RGB", size, _PAGE)
    pen = _Pen(ImageDraw.Draw(image), font, width)
    top = 0
    for row, layout in enumerate(layouts):
      for cell, character in layout.prompt:
        pen.write(cell, character, _PROMPT, top)
      shown = spelled_tokens(tokenizer, frame.tokens[row])
      for place, (cells, text) in enumerate(zip(layout.places, shown, strict=True)):
        at = frame.decided_at[row][place]
        if text is None:
          pen.boxes(cells, _BOX, top)
          continue
        if at != before.decided_at[row][place]:
          pen.boxes(cells, _NEW, top)
        for cell, character in zip(cells, text.replace("\n", "⏎"), strict=False):
          pen.write(cell, character, pass_color(at, last), top)
      top += layout.lines + 1
    decided = sum(token is not None for row in frame.tokens for token in row)
    total = sum(map(len, frame.tokens))
    count = f"pass {frame.number} of {run.frames[-1].number}, {decided} of {total} tokens"
    for column, character in enumerate(count):
      pen.write(Cell(column, 0, 1), character, _DIM, top)
    before = frame
    yield image.quantize(colors=64)


def _layouts(run: CanvasRun, tokenizer: Tokenizer) -> list[CanvasLayout]:
  last = run.frames[-1]
  return [
    lay_out(tokenizer.decode(list(prompt)), spelled_tokens(tokenizer, tokens), _COLUMNS)
    for prompt, tokens in zip(run.prompts, last.tokens, strict=True)
  ]


@dataclasses.dataclass(frozen=True)
class _Pen:
  """Draws characters and boxes in cells of `width` pixels; `top` is the line of cell row 0."""

  draw: Any
  font: Any
  width: int

  def write(self, cell: Cell, character: str, color: str, top: int) -> None:
    self.draw.text(self._corner(cell, top), character, fill=color, font=self.font)

  def boxes(self, cells: Sequence[Cell], color: str, top: int) -> None:
    """Draws one box per line that the cells are in."""
    for line in dict.fromkeys(cell.line for cell in cells):
      here = [cell for cell in cells if cell.line == line]
      x, y = self._corner(here[0], top)
      right = x + sum(cell.width for cell in here) * self.width - 2
      self.draw.rectangle((x, y, right, y + _LINE - 6), fill=color)

  def _corner(self, cell: Cell, top: int) -> tuple[int, int]:
    return _MARGIN + cell.column * self.width, _MARGIN + (top + cell.line) * _LINE
