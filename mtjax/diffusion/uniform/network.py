"""The protocol of networks that denoise uniform canvases, and what such a canvas begins as."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from mtjax.models import Model, Params


@runtime_checkable
class UniformNetwork(Protocol):
  """A model and what a pass over a canvas computes. Frozen and hashable."""

  @property
  def model(self) -> Model:
    """The model; tokens are those of its vocabulary."""
    ...

  @property
  def canvas_length(self) -> int:
    """The number of positions of a canvas."""
    ...

  @property
  def mask_id(self) -> int | None:
    """The id of the mask, which is no token of the vocabulary; None: there is none."""
    ...

  @property
  def commits(self) -> bool:
    """True if a finished canvas needs a pass that reads it."""
    ...

  def start(self, params: Params, prompt: Int[Array, "B S"], length: Int[Array, " B"]) -> PyTree:
    """Returns the cache before the first pass, with the prompts read."""
    ...

  def read(
    self,
    params: Params,
    cache: PyTree,
    token: Int[Array, "B W"],
    begin: Int[Array, " B"],
    count: Int[Array, " B"],
  ) -> PyTree:
    """Returns the cache with `count` clean tokens more, which begin at position `begin`."""
    ...

  def logits(
    self,
    params: Params,
    cache: PyTree,
    text: Int[Array, "B S"],
    canvas: Int[Array, "B W"],
    begin: Int[Array, " B"],
    signal: Float[Array, "B W D"] | None,
  ) -> Float[Array, "B W V"]:
    """Returns logits of the tokens of canvases at `begin`; `text` counts before them alone."""
    ...

  def signal(self, params: Params, logits: Float[Array, "B W V"]) -> Float[Array, "B W D"] | None:
    """Returns what a pass tells the next one over the same canvas; None: nothing."""
    ...

  def no_signal(self, batch: int) -> Float[Array, "B W D"] | None:
    """Returns the signal of the first pass over a canvas."""
    ...


def uniform_tokens(keys: Key[Array, "B L"], vocab_size: int) -> Int[Array, "B L"]:
  """Returns a token per key, each of the vocabulary with the same probability."""
  return jax.vmap(jax.vmap(lambda key: jax.random.randint(key, (), 0, vocab_size)))(keys)


def pure_noise(
  keys: Key[Array, "B L"], mask_share: Float[Array, ""], network: UniformNetwork
) -> Int[Array, "B L"]:
  """Returns noise without any text: masks with probability `mask_share`, else uniform tokens."""
  vocab = network.model.config.vocab_size
  mask = network.mask_id
  if mask is None:
    return uniform_tokens(keys, vocab)

  def one(key):
    choice_key, token_key = jax.random.split(key)
    is_mask = jax.random.uniform(choice_key) < mask_share
    return jnp.where(is_mask, mask, jax.random.randint(token_key, (), 0, vocab))

  return jax.vmap(jax.vmap(one))(keys)
