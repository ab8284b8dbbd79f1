"""The fast program is known to sweeps, and a file sweeps it; a tiny chat model."""

import jax
import pytest

from mtjax import checkpoints
from mtjax.cli.sweep.programs import PROGRAMS
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
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
  model = Model(
    TransformerConfig(
      vocab_size=4096,
      dim=16,
      heads=2,
      kv_heads=1,
      head_dim=8,
      mlp_dim=16,
      layers=uniform_layers(1),
      max_position=256,
    )
  )
  path = tmp_path_factory.mktemp("model") / "tiny"
  checkpoints.save(path, model, model.init(jax.random.key(0)), tokenizer=BpeTokenizer.bundled())
  (path / "chat_template.jinja").write_text(TEMPLATE)
  return path
