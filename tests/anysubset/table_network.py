"""A network of tables: its law depends on every visible (position, token), and on all they saw.

A query's logits are base[i] + the sum over visible contents j of the entry h_j, read by the table
of (i, j). And h_j depends on what content j itself saw: as in a transformer, an entry committed
before all of that is final, or with another prompt in sight, changes what later queries read. So
any mistake about who sees whom, or about what is committed, shows in the law.
"""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np

from mtjax.cache import KVCache
from mtjax.frontier import as_dense
from mtjax.types import LayerKV, Output
from tests.anysubset.network_sizes import sizes


@dataclasses.dataclass(frozen=True)
class TableNetwork:
  """params: base [L, V], read [L, L, V, V], own [L, V, V] (of a token), seen [L, V, V]."""

  vocab: int
  length: int

  @property
  def config(self):
    return sizes(self.vocab, self.length)

  def forward(self, params, frontier, cache=None, rows=None):
    token = jnp.clip(frontier.token, 0, self.vocab - 1)
    sees = as_dense(frontier).astype(params["base"].dtype)
    position = frontier.position
    own, seen = params["own"][position, token], params["seen"][position, token]
    around = jnp.einsum("bij,bjv->biv", sees, seen)
    if cache is not None:
      there = jnp.arange(cache.capacity) < cache.length[:, None]
      old = cache.layers[0]
      around += jnp.einsum("bj,bjv->bv", there.astype(sees.dtype), old.k[:, 0])[:, None]
    content = own + jnp.tanh(around)
    # Entry i reads content j through the table of their positions.
    table = params["read"][position[:, :, None], position[:, None, :]]
    logits = params["base"][position] + jnp.einsum("bij,bijvw,bjw->biv", sees, table, content)
    if cache is not None:
      table = params["read"][position[:, :, None], cache.position[:, None, :]]
      value = jnp.where(there[:, :, None], old.v[:, 0], 0)
      logits += jnp.einsum("bijvw,bjw->biv", table, value)
    kv = (LayerKV(seen[:, None], content[:, None]),)
    selected = logits if rows is None else jnp.take_along_axis(logits, rows[:, :, None], axis=1)
    return Output(selected, logits, kv)

  def read(self, params, features):
    return features

  def allocate(self, batch, capacity, dtype=None):
    # NaN where nothing is committed: whoever reads it is found out.
    empty = jnp.full((batch, 1, capacity, self.vocab), jnp.nan, dtype)
    return KVCache(
      (LayerKV(jnp.zeros_like(empty), empty),),
      jnp.zeros((batch, capacity), jnp.int32),
      jnp.zeros((batch,), jnp.int32),
    )


def random_tables(rng, vocab, length, scale=1.0, mixing=1.0):
  return dict(
    base=rng.normal(size=(length, vocab)),
    read=rng.normal(size=(length, length, vocab, vocab)) * scale,
    own=rng.normal(size=(length, vocab, vocab)),
    seen=rng.normal(size=(length, vocab, vocab)) * mixing,
  )


def conditional(tables, given, decided, position):
  """p of the token at `position`, written out: given {position: token}, decided in order."""
  seen = sum((tables["seen"][i, x] for i, x in given.items()), 0.0)
  contents = {i: tables["own"][i, x] + np.tanh(seen) for i, x in given.items()}
  for i, x in decided:
    seen = seen + tables["seen"][i, x]
    contents[i] = tables["own"][i, x] + np.tanh(seen)
  logits = tables["base"][position] + sum(
    tables["read"][position, j] @ content for j, content in contents.items()
  )
  probs = np.exp(logits - logits.max())
  return probs / probs.sum()


def sequential_probs(tables, given, order, vocab):
  """{tokens in the order: probability}, one conditional after the other."""
  probs = {}
  for text in itertools.product(range(vocab), repeat=len(order)):
    chance = 1.0
    for r, (i, x) in enumerate(zip(order, text, strict=True)):
      decided = list(zip(order[:r], text[:r], strict=True))
      chance *= conditional(tables, given, decided, i)[x]
    probs[text] = chance
  return probs
