"""Passes with or without shadow entries: what is added to the entries that a cache computes."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.types import Frontier


class Entries(NamedTuple):
  """How the entries of a pass become those of the forward.

  `add`: (entries, which of them are the block's, the rows whose logits are wanted) -> (entries,
  rows). The entries of a pass keep their places. `parts`: number of logits per position.
  """

  add: Callable[
    [Frontier, Int[Array, "B W"], Int[Array, "B W"]], tuple[Frontier, Int[Array, "B R"]]
  ]
  parts: int


# The entries as they are.
PLAIN = Entries(lambda frontier, place, rows: (frontier, rows), 1)


def with_shadow(network: MaskedNetwork, now: Pass) -> Entries:
  """Returns the entries with shadow entries of a pass, whose logits follow the others."""
  shadowed = now.window.inside if now.shadowed is None else now.shadowed

  def add(
    frontier: Frontier, place: Int[Array, "B W"], rows: Int[Array, "B W"]
  ) -> tuple[Frontier, Int[Array, "B R"]]:
    frontier, shadow = network.with_shadow(frontier, place, shadowed)
    return frontier, jnp.concatenate([rows, shadow], axis=1)

  return Entries(add, 2)


def split(
  logits: Float[Array, "B R V"],
) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"]]:
  """Returns the logits of a pass and those of its shadow entries."""
  width = logits.shape[1] // 2
  return logits[:, :width], logits[:, width:]
