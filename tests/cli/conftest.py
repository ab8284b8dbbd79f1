"""The fast program is known to sweeps, and a file sweeps it."""

import pytest

from mtjax.cli.sweep.programs import PROGRAMS
from tests.cli import sweeps


@pytest.fixture(autouse=True)
def program(monkeypatch):
  monkeypatch.setitem(PROGRAMS, "sum", None)  # removed again after the test
  sweeps.register()


@pytest.fixture
def config(tmp_path):
  file = tmp_path / "numbers.py"
  file.write_text(sweeps.FILE)
  return f"--config={file}"
