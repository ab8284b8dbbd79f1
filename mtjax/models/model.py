"""The network as a pure function: the only thing decoders, verifiers and losses see of it."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from mtjax import cache as cache_lib
from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.models.config import TransformerConfig
from mtjax.models.transformer import Transformer
from mtjax.types import Frontier, Output

Params = PyTree


@dataclasses.dataclass(frozen=True)
class Model:
  """A transformer without its parameters: hashable, holds no arrays, safe as a static argument."""

  config: TransformerConfig

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters: a plain nested dict."""
    frontier = frontier_lib.causal(jnp.zeros((1, 1), jnp.int32))
    return jax.jit(self._network.init)(key, frontier, None, None)["params"]

  def shapes(self) -> Params:
    """The parameter dict with jax.ShapeDtypeStruct leaves; computes nothing."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def forward(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    """Logits, features and fresh keys/values of the frontier over the committed prefix.

    Every entry sees the whole of `cache` and what its stamp allows of the frontier. Logits are
    float32 and computed for the entries `rows` only (None: all T; R = 0: none, for prefill).
    Nothing is written to the cache: commit what was accepted.
    """
    if frontier.position.shape != frontier.token.shape:
      raise ValueError(f"positions {frontier.position.shape} for tokens {frontier.token.shape}")
    if cache is not None and cache.length.shape[0] != frontier.batch:
      raise ValueError(f"cache of {cache.length.shape[0]} rows, frontier of {frontier.batch}")
    if cache is not None and len(cache.layers) != len(self.config.layers):
      raise ValueError(f"cache of {len(cache.layers)} layers, model of {len(self.config.layers)}")
    return self._network.apply({"params": params}, frontier, cache, rows)

  def allocate(self, batch: int, capacity: int, dtype: jnp.dtype | None = None) -> KVCache:
    """An empty cache for this model. Raises ValueError past its learned positions."""
    c = self.config
    if c.learned_positions is not None and capacity > c.learned_positions:
      raise ValueError(
        f"capacity {capacity} exceeds the {c.learned_positions} positions this model learned"
      )
    return cache_lib.allocate(
      batch=batch,
      capacity=capacity,
      layers=len(c.layers),
      kv_heads=c.kv_heads,
      head_dim=c.head_dim,
      dtype=jnp.dtype(c.dtype) if dtype is None else dtype,
    )

  @property
  def _network(self) -> Transformer:
    return Transformer(self.config)


def count_parameters(params: Params) -> int:
  """Number of scalars."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
