"""The folder of a tiny model, which launchers load."""

from pathlib import Path
from typing import Any

import jax

from mtjax import checkpoints
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers

MASKED = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))


def save(path: Path, **settings: Any) -> Path:
  """Writes a model with random weights and the bundled tokenizer to `path`, and returns it.

  `settings` are more fields of its config, such as MASKED.
  """
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
      **settings,
    )
  )
  checkpoints.save(path, model, model.init(jax.random.key(0)), tokenizer=BpeTokenizer.bundled())
  return path
