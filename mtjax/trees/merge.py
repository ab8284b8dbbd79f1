"""From several branches to one tree."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mtjax.types import TokenTree


def merge(
  root: Int[Array, " B"], token: Int[Array, "B K L"], inside: Bool[Array, "B K L"]
) -> TokenTree:
  """Returns one tree of K branches; a common beginning belongs to the earliest branch."""
  batch, branches, length = token.shape
  # same[b, j, k, t]: branches j and k have their first t + 1 tokens in common.
  pairs = (token[:, :, None] == token[:, None, :]) & inside[:, :, None] & inside[:, None, :]
  same = jnp.cumprod(pairs, axis=3).astype(bool)
  first = jnp.argmax(same, axis=1)  # [B, K, L]; a branch of no token has nothing in common
  is_first = inside & (first == jnp.arange(branches)[:, None])
  node = 1 + first * length + jnp.arange(length)
  parent = jnp.concatenate([jnp.zeros_like(node[:, :, :1]), node[:, :, :-1]], axis=2)
  # Elder siblings: nodes of earlier branches at the same depth with the same parent.
  elder = is_first[:, :, None] & (parent[:, :, None] == parent[:, None, :])
  before = jnp.arange(branches)[:, None] < jnp.arange(branches)
  order = jnp.sum(elder & before[:, :, None], axis=1)

  def nodes(first, rest):
    return jnp.concatenate([first[:, None], rest.reshape(batch, -1)], axis=1)

  zero = jnp.zeros((batch,), jnp.int32)
  depth = jnp.broadcast_to(1 + jnp.arange(length), token.shape)
  return TokenTree(
    token=nodes(root, token),
    parent=nodes(zero - 1, parent),
    depth=nodes(zero, depth),
    order=nodes(zero, order),
    valid=nodes(zero == 0, is_first),
    height=length,
    breadth=branches,
  )
