"""matplotlib, without a screen, where it is installed."""

from pathlib import Path


def pyplot():
  """matplotlib.pyplot. Raises ModuleNotFoundError that names the extra."""
  try:
    import matplotlib
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError("pictures need matplotlib: pip install 'mtjax[viz]'") from error
  matplotlib.use("Agg")
  import matplotlib.pyplot

  return matplotlib.pyplot


def check_suffix(path: str | Path) -> None:
  """ValueError for a file whose suffix is no format that matplotlib writes, or that has none."""
  # pgf needs a TeX.
  known = sorted({*pyplot().Figure().canvas.get_supported_filetypes()} - {"pgf"})
  suffix = Path(path).suffix
  if suffix[1:].lower() not in known:
    raise ValueError(f"a picture is one of {', '.join(known)}, by its suffix: got {str(path)!r}")
