"""A tiny Llama with random weights, as parameters and as a folder."""

import jax
import jax.numpy as jnp
import pytest

from mtjax import checkpoints
from mtjax.models import Model, TransformerConfig, uniform_layers

CONFIG = TransformerConfig(
  vocab_size=40,
  dim=16,
  heads=4,
  kv_heads=2,
  head_dim=4,
  mlp_dim=24,
  layers=uniform_layers(2),
  tied=False,
  max_position=64,
)


@pytest.fixture(scope="session")
def tiny():
  """Returns (model, params) with bfloat16 weights, no two of which are equal."""
  model = Model(CONFIG)
  leaves, tree = jax.tree.flatten(model.shapes())
  keys = jax.random.split(jax.random.key(0), len(leaves))
  sampled = [jax.random.normal(k, x.shape, jnp.bfloat16) for k, x in zip(keys, leaves, strict=True)]
  return model, jax.tree.unflatten(tree, sampled)


@pytest.fixture
def folder(tmp_path, tiny):
  checkpoints.save(tmp_path / "tiny", *tiny)
  return tmp_path / "tiny"
