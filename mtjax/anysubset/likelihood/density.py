"""The exact log-density of any split of a text into given and asked, in one forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtjax.anysubset.canvas import Canvas, check_canvas
from mtjax.anysubset.network import Network
from mtjax.anysubset.orders import lattice, targets_in_order
from mtjax.anysubset.single_stream import asking, check_start
from mtjax.models import Params
from mtjax.rounds.size_buckets import bucket

_READ = 32  # entries whose logits are held at once


def log_likelihood(
  model: Network, params: Params, canvas: Canvas, rank: Int[Array | np.ndarray, "B L"] | None = None
) -> Float[np.ndarray, "B L"]:
  """log p of every asked entry given the given ones and the asked ones of lower rank, in nats.

  Its sum over a row is log p(asked | given), exactly, under the order `rank` (None: the lattice's):
  all conditionals come of one pass, of two streams (2504.20456, sec. 4) or of one. 0 where nothing
  is asked. The canvas's tokens are the text. Logits are held for a few entries at a time.

  Raises ValueError, before compilation, for tokens outside the vocabulary, given or asked, for
  entries that are both, for ranks that are no order of the asked entries, and for a text that a
  single-stream model has nothing to begin with.
  """
  config = model.config
  check_start(config, canvas)
  check_canvas(config, canvas)
  token, is_target = np.asarray(canvas.token), np.asarray(canvas.is_target)
  known = token[is_target]
  if known.size and (known.min() < 0 or known.max() >= config.vocab_size):
    raise ValueError(f"asked tokens are outside 0..{config.vocab_size - 1}")
  ranks = np.asarray(lattice(canvas) if rank is None else rank)
  order, _ = targets_in_order(canvas, ranks)
  size, limit = canvas.size, config.max_position
  padding = ((0, 0), (0, bucket(size, maximum=limit) - size))
  queries = bucket(order.shape[1], maximum=limit)
  queries += -queries % min(queries, _READ)
  order = np.pad(order, ((0, 0), (0, queries - order.shape[1])), constant_values=-1)
  padded = jax.tree.map(lambda x: jnp.asarray(np.pad(np.asarray(x), padding)), canvas)
  own = _log_likelihood(model, params, padded, np.pad(ranks, padding), order)
  out = np.zeros(token.shape, np.float32)
  row, place = np.nonzero(order >= 0)
  out[row, order[row, place]] = np.asarray(own)[row, place]
  return out


@functools.partial(jax.jit, static_argnames="model")
def _log_likelihood(model, params, canvas, rank, order):
  frontier, rows = asking(model.config, canvas, rank, order)
  none = jnp.zeros((order.shape[0], 0), jnp.int32)
  features = model.forward(params, frontier, rows=none).features
  features = jnp.take_along_axis(features, rows[:, :, None], axis=1)
  token = jnp.take_along_axis(canvas.token, jnp.maximum(order, 0), axis=1)

  def read(part):
    features, token = part
    logits = model.read(params, features).astype(jnp.float32)
    own = jnp.take_along_axis(logits, token[:, :, None], axis=2)[:, :, 0]
    return own - jax.nn.logsumexp(logits, axis=2)

  parts = order.shape[1] // min(order.shape[1], _READ)
  split = [jnp.stack(jnp.split(x, parts, axis=1)) for x in (features, token)]
  return jnp.concatenate(list(jax.lax.map(read, tuple(split))), axis=1)
