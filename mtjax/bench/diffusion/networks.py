"""The random networks that a benchmark of denoising runs on."""

import dataclasses

import jax
from jaxtyping import PRNGKeyArray

from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.models import Model, Params, TransformerConfig, uniform_layers

_SCALE = 2.0  # random weights times this: logits then depend on their context


def random_networks(
  block_length: int, max_position: int, key: PRNGKeyArray
) -> dict[str, tuple[MaskedNetwork, Params]]:
  """Returns a random network without blocks and one with, by name, of 12 million parameters."""
  config = TransformerConfig(
    vocab_size=2048,
    dim=384,
    heads=6,
    kv_heads=6,
    head_dim=64,
    mlp_dim=1024,
    layers=uniform_layers(6),
    max_position=max_position,
    predicts="masked",
    extra_embeddings=1,
    extra_names=("mask",),
  )
  blocks = dataclasses.replace(config, block_length=block_length)
  params = jax.tree.map(lambda x: _SCALE * x, Model(config).init(key))
  return {
    "random": (MaskedNetwork.of(Model(config)), params),
    "random, blocks": (MaskedNetwork.of(Model(blocks)), params),
  }
