"""Pictures are made without changes to the user's own figures and backend."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from mtjax.frontier import bidirectional
from mtjax.report.mask_pictures import blocks_picture
from mtjax.report.plotting import check_suffix


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
