"""The protocol of models that any-subset methods use."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mtjax.anysubset.canvas import banned_token
from mtjax.cache import KVCache
from mtjax.models import Config, Params
from mtjax.types import Frontier, Output


@runtime_checkable
class Network(Protocol):
  """A model without its parameters, as `mtjax.models.Model` is. Frozen and hashable."""

  @property
  def config(self) -> Config:
    """The model's sizes: vocabulary, positions, extra embeddings."""
    ...

  def forward(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    """Returns logits, features and fresh keys and values, as `Model.forward` does."""
    ...

  def read(self, params: Params, features: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    """Returns the logits of features that `forward` has returned."""
    ...

  def allocate(self, batch: int, capacity: int, dtype: DTypeLike | None = None) -> KVCache:
    """Returns an empty cache."""
    ...


@dataclasses.dataclass(frozen=True)
class WithoutMask:
  """A network whose logits have -inf at a token that no entry may become."""

  network: Network
  token: int

  @property
  def config(self) -> Config:
    return self.network.config

  def forward(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    output = self.network.forward(params, frontier, cache, rows)
    return output._replace(logits=self._allowed(output.logits))

  def read(self, params: Params, features: Float[Array, "B R D"]) -> Float[Array, "B R V"]:
    return self._allowed(self.network.read(params, features))

  def allocate(self, batch: int, capacity: int, dtype: DTypeLike | None = None) -> KVCache:
    return self.network.allocate(batch, capacity, dtype)

  def _allowed(self, logits):
    return jnp.where(jnp.arange(logits.shape[-1]) == self.token, -jnp.inf, logits)


def without_mask(network: Network) -> Network:
  """Returns a network that never predicts its own mask, where that is a token of the vocabulary.

  SetDLM's code does the same. All probability is then on texts without masks.
  """
  token = banned_token(network.config)
  return network if token is None else WithoutMask(network, token)
