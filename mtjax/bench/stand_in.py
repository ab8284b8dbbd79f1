"""A model that answers without computing: with it in a network's place, the rest is timed."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.models import Config, Model
from mtjax.types import Frontier, LayerKV, Output

_ENTRIES = 256  # maximum number of entries of a forward pass


class Answers(NamedTuple):
  """The source of a stand-in's answers, in place of parameters."""

  logits: Float[Array, "N V"]
  feature: Float[Array, " D"]
  kv: LayerKV


@dataclasses.dataclass(frozen=True)
class StandIn:
  """A replacement for a model where it is called; `params` are its answers.

  An Output is returned as it is. With `Answers`, the token of each entry selects a row of logits:
  they are written to memory, like those of a network, and nothing else is done.
  """

  model: Model

  @property
  def config(self) -> Config:
    return self.model.config

  def allocate(self, batch: int, capacity: int, dtype: DTypeLike | None = None) -> KVCache:
    return self.model.allocate(batch, capacity, dtype)

  def prefix(self, layers: int) -> "StandIn":
    return StandIn(self.model.prefix(layers))

  def forward(
    self,
    params: Answers | Output,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    if isinstance(params, Output):
      return params
    return self.segment(params, frontier, cache, rows, first=0, last=len(self.config.layers))[0]

  def segment(
    self,
    params: Answers,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
    *,
    first: int,
    last: int,
    hidden: Float[Array, "B T D"] | None = None,
  ) -> tuple[Output, Float[Array, "B F D"]]:
    token = frontier.token
    if rows is not None:
      token = jnp.take_along_axis(token, rows, axis=1)
    batch, size = frontier.token.shape
    kv = LayerKV(*(jnp.tile(x[None, :, :size], (batch, 1, 1, 1)) for x in params.kv))
    width = params.feature.shape[0]
    features = jnp.broadcast_to(params.feature, (batch, token.shape[1] or size, width))
    hidden = jnp.broadcast_to(params.feature, (batch, size, width))
    logits = params.logits[token % params.logits.shape[0]]
    is_last = last == len(self.config.layers)
    return Output(logits, features, (kv,) * (last - first)), features if is_last else hidden


def with_stand_in(drafter: Any) -> Any:
  """Returns the drafter (a dataclass) with a stand-in for its model; None if it has no model."""
  model = getattr(drafter, "model", None)
  return dataclasses.replace(drafter, model=StandIn(model)) if isinstance(model, Model) else None


def answers_of(model: Model, logits: Float[Array, "B N V"]) -> Answers:
  c = model.config
  kv = jnp.ones((c.kv_heads, _ENTRIES, c.head_dim), c.dtype)
  return Answers(logits[0], jnp.ones((c.dim,), c.dtype), LayerKV(kv, kv))
