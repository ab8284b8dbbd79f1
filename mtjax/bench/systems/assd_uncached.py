"""ASSD as its authors run it: no cache, one text, all N entries in every forward pass.

The exact cache is compared with it in benchmarks and in tests: it shares the network and the order
with `mtjax.anysubset`, and nothing of its passes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from mtjax.anysubset.canvas import Canvas, two_stream
from mtjax.anysubset.orders import lattice
from mtjax.models import Model, Params
from mtjax.sampling.logits import Seed, seed_key


class UncachedFilling(NamedTuple):
  """The filled tokens, and the number of forward passes."""

  token: Int[np.ndarray, " L"]
  forwards: int


def assd_uncached(
  model: Model,
  params: Params,
  canvas: Canvas,
  *,
  window: int,
  temperature: float = 1.0,
  key: Seed = 0,
) -> UncachedFilling:
  """Runs algorithm 1 of 2504.20456 with the self-draft, for a canvas of one row; window >= 1.

  A round is a draft call, in which every undecided entry of the window sees only decided ones, and
  then, unless the last entry was drafted, an oracle call with the drafts filled in.
  """
  if canvas.token.shape[0] != 1:
    raise ValueError(f"one text at a time, got {canvas.token.shape[0]}")
  key = seed_key(key)
  token, forwards = _run(model, params, canvas, window, temperature, key)
  return UncachedFilling(np.asarray(token)[0], int(forwards))


@functools.partial(jax.jit, static_argnames=("model", "window"))
def _run(model, params, canvas, window, temperature, key):
  rank = lattice(canvas)
  total = jnp.max(rank)
  # Canvas indices by rank, from 1; index 0 is not used.
  order = jnp.argsort(jnp.where(canvas.is_target, rank, rank.shape[1] + 1), axis=1)[0]

  def probs(token, decided, drafted):
    """Returns probs of entries decided + 1, ..., decided + window; `drafted`: they see drafts."""
    place = decided + jnp.arange(window)
    query = order[jnp.minimum(place, order.shape[0] - 1)][None]
    seen = rank if drafted else jnp.where(rank > decided, decided + 1, rank)
    frontier = two_stream(model.config, canvas.replace(token=token), seen, query)
    rows = jnp.arange(window)[None] + canvas.size
    logits = model.forward(params, frontier, rows=rows).logits[0]
    return jax.nn.softmax(logits / temperature, axis=-1), query[0]

  def one_round(carry):
    token, decided, forwards, key = carry
    key, draft_key, coin_key, residual_key = jax.random.split(key, 4)
    p, query = probs(token, decided, False)
    size = jnp.minimum(window, total - decided)
    draft = jax.random.categorical(draft_key, jnp.log(p), axis=-1, mode="high")
    write = jnp.where(jnp.arange(window) < size, query, canvas.size)
    drafted = token.at[0, write].set(draft, mode="drop")

    def verified(_):
      q, _ = probs(drafted, decided, True)
      at = jnp.arange(window)
      keep = jax.random.uniform(coin_key, (window,)) * p[at, draft] < q[at, draft]
      # The first draft is kept by lemma 1, in spite of rounding.
      keep = keep.at[0].set(True) | (at >= size)
      accepted = jnp.sum(jnp.cumprod(keep))
      refused = jnp.minimum(accepted, window - 1)
      left = jnp.maximum(q[refused] - p[refused], 0)
      fixed = jax.random.categorical(residual_key, jnp.log(left), mode="high")
      place = jnp.where(accepted < size, query[refused], canvas.size)
      text = drafted.at[0, place].set(fixed, mode="drop")
      return text, decided + jnp.minimum(accepted + 1, size), forwards + 2

    def last(_):
      return drafted, decided + 1, forwards + 1

    token, decided, forwards = jax.lax.cond(total - decided == 1, last, verified, None)
    return token, decided, forwards, key

  start = (canvas.token, jnp.int32(0), jnp.int32(0), key)
  token, _, forwards, _ = jax.lax.while_loop(lambda c: c[1] < total, one_round, start)
  return token, forwards
