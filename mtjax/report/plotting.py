"""matplotlib, without a screen, where it is installed."""

import functools
import io
from pathlib import Path
from typing import Any


def new_figure(**settings: Any) -> Any:
  """Returns an empty `matplotlib.figure.Figure`, for `savefig` or for a notebook.

  It is not one of pyplot's, which would choose a backend for the whole process and keep the figure
  in memory: the figures of a program that calls this look and appear as before. A notebook shows it
  without pyplot too. Raises ModuleNotFoundError that names the extra.
  """
  return _figure_class()(**settings)


@functools.cache
def _figure_class() -> type:
  try:
    from matplotlib.figure import Figure
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError("pictures need matplotlib: pip install 'mtjax[viz]'") from error

  class NotebookFigure(Figure):
    """A figure with what a notebook asks for: IPython draws others only once pyplot is imported."""

    def _repr_png_(self) -> bytes:
      file = io.BytesIO()
      self.savefig(file, format="png", bbox_inches="tight")
      return file.getvalue()

  return NotebookFigure


def check_suffix(path: str | Path) -> None:
  """Raises ValueError for a file whose suffix is missing or is no format of matplotlib."""
  # The format pgf needs TeX.
  known = sorted({*new_figure().canvas.get_supported_filetypes()} - {"pgf"})
  suffix = Path(path).suffix
  if suffix[1:].lower() not in known:
    raise ValueError(f"a picture is one of {', '.join(known)}, by its suffix: got {str(path)!r}")
