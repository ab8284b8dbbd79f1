"""The fast program is known to sweeps, and a file sweeps it; a tiny chat model."""

import pytest

from mtjax.cli.sweep.programs import PROGRAMS
from tests import tiny_model
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


TEMPLATE = (
  "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
  "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory):
  """Returns the folder of a tiny model with random weights and a chat template."""
  path = tiny_model.save(tmp_path_factory.mktemp("model") / "tiny")
  (path / "chat_template.jinja").write_text(TEMPLATE)
  return path
