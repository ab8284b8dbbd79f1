"""Any-order models of a single stream: entry after entry of an order, each told what comes next.

Sigma-GPT (2404.09562) and AO-GPT (2506.19935). Entry i holds its token and position, sees what
stands before it in the order, and predicts the token at the next position of the order, which is
given to it (`Frontier.target`). One entry a token, where two streams have a content and a query;
but keys and values are made for one next position. The cache is exact in a fixed order, in which
the next position is known when an entry is read; whoever decides on what comes next after an entry
was read, or wants the laws of several next positions from one entry, has to read it again.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import Canvas, two_stream
from mtjax.types import Frontier


def is_single_stream(config: Any) -> bool:
  """Whether entries of a model are told which position to predict."""
  # Networks of other kinds have no such setting.
  return getattr(config, "target_conditioning", "none") != "none"


def single_stream(
  canvas: Canvas, rank: Int[Array, "B L"], document: Int[Array, "B L"] | None = None
) -> tuple[Frontier, Int[Array, "B L"]]:
  """The canvas in one order, given entries first, ascending; and who predicts whom.

  The second: for each entry the one before it in the order, whose logits are its law; itself for
  the first, which nobody predicts. Entries stay where they are in the canvas, ranks make the order.
  With `document` (numbers rising along the canvas), each has an order of its own and is blind to
  the others, as in `two_stream`; its first given entry is its start.
  """
  size = canvas.size
  index = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), canvas.token.shape)
  valid = canvas.is_context | canvas.is_target
  number = jnp.zeros_like(index) if document is None else document
  key = jnp.where(canvas.is_context, index, size + rank) + number * (2 * size + 1)
  order = jnp.argsort(jnp.where(valid, key, jnp.iinfo(jnp.int32).max), axis=1, stable=True)
  place = jnp.argsort(order, axis=1).astype(jnp.int32)

  def at(values, where):
    return jnp.take_along_axis(values, jnp.clip(where, 0, size - 1), axis=1)

  def neighbour(step):
    there = at(order, place + step)
    alike = (at(number, there) == number) & at(valid, there) & valid
    return there, alike & (place + step >= 0) & (place + step < size)

  after, has_after = neighbour(1)
  before, has_before = neighbour(-1)
  contents = frontier_lib.content(canvas.token, canvas.position, place, valid=valid)
  if document is not None:
    apart = frontier_lib.block_local(canvas.token, document)
    contents = frontier_lib.both(contents, apart)
  target = jnp.where(has_after, at(canvas.position, after), -1)
  return contents.replace(target=target), jnp.where(has_before, before, index)


def asking(
  config: Any,
  canvas: Canvas,
  rank: Int[Array, "B L"],
  query: Int[Array, "B Q"],
  document: Int[Array, "B L"] | None = None,
) -> tuple[Frontier, Int[Array, "B Q"]]:
  """A frontier that reads all conditionals of an order, and the rows with those of `query`.

  In one stream or in two, as the model has it. `query`: indices of asked entries (-1: none).
  """
  if not is_single_stream(config):
    frontier = two_stream(config, canvas, rank, query, document)
    return frontier, jnp.broadcast_to(canvas.size + jnp.arange(query.shape[1]), query.shape)
  frontier, before = single_stream(canvas, rank, document)
  return frontier, jnp.take_along_axis(before, jnp.maximum(query, 0), axis=1)


def check_two_streams(config: Any, what: str) -> None:
  """Raises ValueError where `what` would need one entry of a single stream for several targets."""
  if is_single_stream(config):
    raise ValueError(
      f"{what} needs several laws from what is decided, or decides what comes next after it was "
      "read, and this is a single-stream model (target_conditioning "
      f"{config.target_conditioning!r}): an entry's keys are made for its one next position, and "
      "cached for another they would be wrong. Fill with Sequential(), or take a model of two "
      "streams"
    )


def check_start(config: Any, canvas: Canvas) -> None:
  """Raises ValueError where nothing stands before the first asked entry, to predict it."""
  if is_single_stream(config) and not np.asarray(canvas.is_context).any(axis=1).all():
    raise ValueError(
      "a single-stream model predicts an entry from the one before it in the order: every text "
      "needs a given entry, and a model with a sink (extra_names) gives it one"
    )
