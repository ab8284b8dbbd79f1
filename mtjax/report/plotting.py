"""matplotlib, without a screen, where it is installed."""


def pyplot():
  """matplotlib.pyplot. Raises ModuleNotFoundError that names the extra."""
  try:
    import matplotlib
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError("pictures need matplotlib: pip install 'mtjax[viz]'") from error
  matplotlib.use("Agg")
  import matplotlib.pyplot

  return matplotlib.pyplot
