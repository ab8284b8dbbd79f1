"""Random numbers of a pass: from the row's key, the pass and the position, and nothing else.

So a row's text depends neither on its batch nor on the width of the window that is computed.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mtjax.diffusion.view import View


class Stream(enum.IntEnum):
  """Folded into a row's key: what is sampled in one pass for different purposes is independent."""

  TOKEN = 0xD1FF0000
  ORDER = 0xD1FF0001
  TRANSFER = 0xD1FF0002
  REVISE = 0xD1FF0003
  TIME = 0xD1FF0004
  NOISE = 0xD1FF0005


def pass_keys(view: View, stream: Stream) -> Key[Array, " B"]:
  """Returns a key per row, for one purpose in this pass."""
  if view.noise is not None:
    raise ValueError(f"View.noise has no numbers in place of the random ones of {stream.name}")
  return _keys_of_rows(view.key, view.passes, stream)


def position_keys(view: View, stream: Stream) -> Key[Array, "B L"]:
  """Returns a key per position, for one purpose in this pass."""
  return _keys_of_positions(pass_keys(view, stream), view.position)


def keys_before(
  key: Key[Array, " B"], passes: Int[Array, " B"], position: Int[Array, "B L"], stream: Stream
) -> Key[Array, "B L"]:
  """Returns a key per position for what is sampled before there are logits: rows have no `View`."""
  return _keys_of_positions(_keys_of_rows(key, passes, stream), position)


def gumbel(view: View, stream: Stream) -> Float[Array, "B L"]:
  """Returns Gumbel noise per position, of high precision: float32's default stops at 15.94."""
  if view.noise is not None and stream in view.noise:
    return view.noise[stream]
  dtype = view.scored.dtype

  def one(key):
    return jax.random.gumbel(key, (), dtype, mode="high")

  return jax.vmap(jax.vmap(one))(position_keys(view, stream))


def uniform(view: View, stream: Stream) -> Float[Array, "B L"]:
  """Returns a number in [0, 1) per position."""
  if view.noise is not None and stream in view.noise:
    return view.noise[stream]
  dtype = view.scored.dtype
  return jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (), dtype)))(
    position_keys(view, stream)
  )


def uniform_of_row(view: View, stream: Stream) -> Float[Array, " B"]:
  """Returns a number in [0, 1) per row."""
  dtype = view.scored.dtype
  return jax.vmap(lambda key: jax.random.uniform(key, (), dtype))(pass_keys(view, stream))


def _keys_of_rows(key, passes, stream):
  def one(key, number):
    return jax.random.fold_in(jax.random.fold_in(key, jnp.uint32(stream)), number)

  return jax.vmap(one)(key, passes)


def _keys_of_positions(keys, position):
  return jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))(keys, position)
