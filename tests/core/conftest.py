"""One tiny model and its jitted forward pass, shared: compilations are what tests cost."""

import dataclasses

import jax
import pytest

from mtjax.models import Layer, Model, TransformerConfig

VOCAB = 48


@pytest.fixture(scope="session")
def tiny():
  """(model, params, forward): grouped heads, one windowed layer, two extra embeddings."""
  model = Model(
    TransformerConfig(
      vocab_size=VOCAB,
      dim=24,
      heads=4,
      kv_heads=2,
      head_dim=8,
      mlp_dim=32,
      layers=(Layer(), Layer(window=5)),
      qk_norm="head",
      extra_embeddings=2,
      max_position=256,
    )
  )
  params = model.init(jax.random.key(0))
  # Larger weights than at initialisation: differences between masks must show in the logits.
  params = jax.tree.map(lambda x: x * 3 if x.ndim == 2 else x, params)
  return model, params, jax.jit(model.forward)


@pytest.fixture(scope="session")
def causal(tiny):
  """(model, params, forward) without the extra embeddings: what decodes."""
  model, params, _ = tiny
  model = Model(dataclasses.replace(model.config, extra_embeddings=0))
  params = {name: value for name, value in params.items() if name != "extra"}
  return model, params, jax.jit(model.forward)
