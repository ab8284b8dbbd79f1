"""One tiny any-subset transformer, shared: compilations are what tests cost."""

import jax
import pytest

from mtjax.models import Model, TransformerConfig, uniform_layers

VOCAB = 3


@pytest.fixture(scope="session")
def tiny():
  """Returns (model, params) with grouped heads, a query and a sink."""
  model = Model(
    TransformerConfig(
      vocab_size=VOCAB,
      dim=16,
      heads=4,
      kv_heads=2,
      head_dim=8,
      mlp_dim=32,
      layers=uniform_layers(2),
      predicts="any_subset",
      extra_embeddings=2,
      extra_names=("query", "sink"),
      max_position=64,
    )
  )
  params = model.init(jax.random.key(0))
  # Larger weights than at initialisation: what an entry sees must show in its distribution.
  return model, jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, params)
