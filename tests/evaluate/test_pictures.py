"""Pictures are made without changes to the user's own figures and backend."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from mtjax.frontier import bidirectional
from mtjax.report.mask_pictures import blocks_picture
from mtjax.report.plotting import check_suffix, new_figure
from tests.source import ROOT, modules, sources, used, within


@pytest.fixture
def backend():
  """Sets a backend that is no default, in place of that of the tests."""
  before = matplotlib.get_backend()
  matplotlib.use("svg")
  yield "svg"
  matplotlib.use(before)


def test_the_user_s_backend_and_open_figures_are_left_as_they_are(backend, tmp_path):
  mine = pyplot.figure()
  check_suffix("a.png")
  picture = blocks_picture({"all": bidirectional(np.zeros((1, 4), np.int32))}, 2)
  for name, magic in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")):
    picture.savefig(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
  assert matplotlib.get_backend() == backend
  assert pyplot.get_fignums() == [mine.number] and pyplot.gcf() is mine
  pyplot.close(mine)


def test_a_notebook_shows_a_figure_without_pyplot():
  """IPython calls `_repr_png_`; it draws other figures only once pyplot is imported."""
  figure = new_figure(figsize=(1, 1))
  figure.subplots().plot([0, 1])
  assert isinstance(figure, matplotlib.figure.Figure)
  assert figure._repr_png_().startswith(b"\x89PNG")


def test_no_file_reaches_for_pyplot_or_a_backend():
  uses = [
    f"{path}:{line} uses {name}"
    for path, tree in sources().items()
    if path.parts[0] != "tests"
    for name, line in used(path, tree).items()
    if within(name, "matplotlib.pyplot") or within(name, "matplotlib.use")
  ]
  assert not uses, "mtjax.report.plotting.new_figure makes figures: " + ", ".join(uses)


def test_importing_every_report_and_drawing_leaves_pyplot_out_of_the_process():
  reports = [name for name in modules() if within(name, "mtjax.report")]
  assert len(reports) > 10
  code = (
    f"import sys, {', '.join(reports)}\n"
    "from mtjax.report.plotting import check_suffix, new_figure\n"
    "before = 'matplotlib' in sys.modules\n"
    "check_suffix('a.svg')\n"
    "new_figure().subplots()\n"
    "print(before, 'matplotlib.pyplot' in sys.modules, sys.modules['matplotlib'].rcParams"
    "._get_backend_or_none())"
  )
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert run.stdout == "False False None\n", run.stdout + run.stderr
