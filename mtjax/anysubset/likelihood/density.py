"""The exact log-density of any split of a text into context and targets, in one forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtjax import hosts
from mtjax.anysubset.canvas import Canvas, check_canvas
from mtjax.anysubset.network import Network, without_mask
from mtjax.anysubset.orders import lattice, targets_in_order
from mtjax.anysubset.single_stream import check_start, order_frontier
from mtjax.models import Params
from mtjax.rounds.placement import Placement
from mtjax.rounds.size_buckets import bucket
from mtjax.sharding import MeshLike, on_mesh

_READ = 32  # number of entries whose logits are held at once


def log_likelihood(
  model: Network,
  params: Params,
  canvas: Canvas,
  rank: Int[Array | np.ndarray, "B L"] | None = None,
  *,
  mesh: MeshLike = None,
) -> Float[np.ndarray, "B L"]:
  """Returns log p of every target given the context and the targets of lower rank, in nats.

  The sum over a row is exactly log p(targets | context) in the order `rank`; None stands for the
  lattice's order. One pass computes all conditionals, in two streams (2504.20456, sec. 4) or in
  one. The value is 0 at entries that are not targets. The canvas's tokens are the text. Logits are
  held for a few entries at a time. `mesh` is that of `mtjax.anysubset.fill`.

  Raises ValueError, before compilation, for tokens outside the vocabulary, for entries that are
  both context and target, for ranks that are no order of the targets, and, with a single-stream
  model, for a text without context to start from.
  """
  config = model.config
  check_start(config, canvas)
  check_canvas(config, canvas)
  token, is_target = np.asarray(canvas.token), np.asarray(canvas.is_target)
  known = token[is_target]
  if known.size and (known.min() < 0 or known.max() >= config.vocab_size):
    raise ValueError(f"target tokens must be within 0..{config.vocab_size - 1}")
  ranks = np.asarray(lattice(canvas) if rank is None else rank)
  order, _ = targets_in_order(canvas, ranks)
  size, limit = canvas.size, config.max_position
  padding = ((0, 0), (0, bucket(size, maximum=limit) - size))
  queries = bucket(order.shape[1], maximum=limit)
  queries += -queries % min(queries, _READ)
  order = np.pad(order, ((0, 0), (0, queries - order.shape[1])), constant_values=-1)
  padded = jax.tree.map(lambda x: jnp.asarray(np.pad(np.asarray(x), padding)), canvas)
  placement = Placement.of(mesh, config, len(token)).beside(params)
  inputs = placement.put((params, padded, np.pad(ranks, padding), order))
  with on_mesh(placement.mesh):
    hosts.compile_together(_log_likelihood, without_mask(model), *inputs)
    log_p = hosts.whole(_log_likelihood(without_mask(model), *inputs))
  out = np.zeros(token.shape, np.float32)
  row, place = np.nonzero(order >= 0)
  out[row, order[row, place]] = log_p[row, place]
  return out


@functools.partial(jax.jit, static_argnames="model")
def _log_likelihood(model, params, canvas, rank, order):
  frontier, rows = order_frontier(model.config, canvas, rank, order)
  none = jnp.zeros((order.shape[0], 0), jnp.int32)
  features = model.forward(params, frontier, rows=none).features
  features = jnp.take_along_axis(features, rows[:, :, None], axis=1)
  token = jnp.take_along_axis(canvas.token, jnp.maximum(order, 0), axis=1)

  def read(part):
    features, token = part
    logits = model.read(params, features).astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, token[:, :, None], axis=2)[:, :, 0]
    return chosen - jax.nn.logsumexp(logits, axis=2)

  parts = order.shape[1] // min(order.shape[1], _READ)
  split = [jnp.stack(jnp.split(x, parts, axis=1)) for x in (features, token)]
  return jnp.concatenate(list(jax.lax.map(read, tuple(split))), axis=1)
