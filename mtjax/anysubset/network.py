"""The protocol of models that any-subset methods use."""

from typing import Protocol, runtime_checkable

from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

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
