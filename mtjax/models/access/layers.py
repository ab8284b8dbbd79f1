"""A transformer one layer at a time: what a policy that decides between layers needs beside it.

`Model.segment` runs layers; this module gives their inputs, their queries, keys and values without
attention, and the logits of their outputs.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from mtjax.models.config import Layer, TransformerConfig
from mtjax.models.linear import Embedding, logits_of
from mtjax.models.model import Config
from mtjax.models.stacking import Stacks
from mtjax.models.transformer import Norm, angles_of, embedded, projected
from mtjax.types import Frontier


class Projected(NamedTuple):
  """What a layer computes from its inputs before attention; keys are rotated as in a cache."""

  q: Float[Array, "B T H D"]
  k: Float[Array, "B T G D"]
  v: Float[Array, "B T G D"]


@dataclasses.dataclass(frozen=True)
class LayerAccess:
  """The parts of a model between its layers, as pure functions of the model's parameters."""

  config: TransformerConfig

  @classmethod
  def of(cls, config: Config) -> "LayerAccess":
    """Returns access to a model's layers.

    Raises ValueError for a network that is no plain transformer, for one whose layers know which
    position they predict, and for one whose layers are in one scan.
    """
    if not isinstance(config, TransformerConfig) or config.target_conditioning == "adaptive_norm":
      raise ValueError("only the layers of a plain transformer can be read one by one")
    if Stacks.of(config).count:
      raise ValueError("layers in one scan cannot be read: use layer_loop 'unrolled'")
    return cls(config)

  def embed(self, params: PyTree, frontier: Frontier) -> Float[Array, "B T D"]:
    """Returns the inputs of the first layer."""
    return _Inputs(self.config).apply({"params": params}, frontier)

  def project(
    self, params: PyTree, x: Float[Array, "B T M"], position: Int[Array, "B T"], layer: int
  ) -> Projected:
    """Returns queries, keys and values of one layer for its inputs x."""
    network = _Projection(self.config, layer)
    return network.apply({"params": params[f"layer_{layer}"]}, x, position)

  def logits(self, params: PyTree, x: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    """Returns the logits of outputs x of the last layer."""
    return _Outputs(self.config).apply({"params": params}, x)


class _Inputs(nn.Module):
  config: TransformerConfig

  @nn.compact
  def __call__(self, frontier: Frontier):
    c = self.config
    embedding = Embedding(c.vocab_size, c.dim, jnp.dtype(c.dtype), name="embedding")
    return embedded(c, embedding, frontier)


class _Projection(nn.Module):
  """A `TransformerBlock` that ends where attention begins."""

  config: TransformerConfig
  layer: int

  @nn.compact
  def __call__(self, x, position):
    c, layer = self.config, self.config.layers[self.layer]
    if c.norm_placement != "post":
      x = Norm(c.norm, c.norm_eps, name="attention_norm")(x)
    angles = {} if layer.rope is None else {layer.rope: angles_of(c, layer.rope, position)}
    return Projected(*_BeforeAttention(c, layer, name="attention")(x, angles))


class _BeforeAttention(nn.Module):
  config: TransformerConfig
  layer: Layer

  @nn.compact
  def __call__(self, x, angles):
    return projected(self.config, self.layer, x, angles)


class _Outputs(nn.Module):
  config: TransformerConfig

  @nn.compact
  def __call__(self, x):
    c = self.config
    embedding = Embedding(c.vocab_size, c.dim, jnp.dtype(c.dtype), name="embedding")
    return logits_of(self, embedding, Norm(c.norm, c.norm_eps, name="final_norm")(x))
