"""A network whose law at a position depends on which (position, token) are visible, and no more.

params: logits [(V + 1)^L, L, V], a row for every text with open places (digit 0: open, 1 + token:
known; place 0 is the highest digit). Any conditionals can be put there: those of one joint law, all
consistent, or arbitrary ones. What a content saw itself does not matter, unlike in a transformer.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mtjax.cache import KVCache
from mtjax.frontier import as_dense
from mtjax.types import LayerKV, Output
from tests.anysubset.network_sizes import sizes


@dataclasses.dataclass(frozen=True)
class SetNetwork:
  vocab: int
  length: int

  @property
  def config(self):
    return sizes(self.vocab, self.length)

  def forward(self, params, frontier, cache=None, rows=None):
    digit = (self.vocab + 1.0) ** (self.length - 1 - frontier.position)
    value = (jnp.clip(frontier.token, 0, self.vocab - 1) + 1) * digit
    known = jnp.einsum("bij,bj->bi", as_dense(frontier).astype(value.dtype), value)
    if cache is not None:
      there = jnp.arange(cache.capacity) < cache.length[:, None]
      known += jnp.sum(jnp.where(there, cache.layers[0].v[:, 0, :, 0], 0), axis=1)[:, None]
    logits = params["logits"][jnp.round(known).astype(jnp.int32), frontier.position]
    kv = (LayerKV(value[:, None, :, None], value[:, None, :, None]),)
    selected = logits if rows is None else jnp.take_along_axis(logits, rows[:, :, None], axis=1)
    return Output(selected, logits, kv)

  def read(self, params, features):
    return features

  def allocate(self, batch, capacity, dtype=None):
    # NaN where nothing is committed: whoever reads it is found out.
    empty = jnp.full((batch, 1, capacity, 1), jnp.nan, dtype)
    return KVCache(
      (LayerKV(jnp.zeros_like(empty), empty),),
      jnp.zeros((batch, capacity), jnp.int32),
      jnp.zeros((batch,), jnp.int32),
    )


def row_of(known, vocab):
  """Of a partial text: a token, or None, for each place."""
  row = 0
  for token in known:
    row = row * (vocab + 1) + (0 if token is None else token + 1)
  return row


def partial_texts(vocab, length):
  """Every text with open places (None), as `row_of` counts them."""
  for row in np.ndindex(*(vocab + 1,) * length):
    yield tuple(None if digit == 0 else digit - 1 for digit in row)


def consistent_tables(joint):
  """The conditionals of a joint law [V] * L."""
  length, vocab = joint.ndim, joint.shape[0]
  logits = np.zeros(((vocab + 1) ** length, length, vocab))
  for known in partial_texts(vocab, length):
    fitting = joint[tuple(slice(None) if x is None else slice(x, x + 1) for x in known)]
    for place in range(length):
      if known[place] is None:
        others = tuple(axis for axis in range(length) if axis != place)
        logits[row_of(known, vocab), place] = np.log(fitting.sum(axis=others))
  return dict(logits=logits)
