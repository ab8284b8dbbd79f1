"""The time of a forward pass of n entries over that of one: what judging n - 1 drafts costs."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mtjax import frontier as frontier_lib
from mtjax.bench.passes.products import products_alone
from mtjax.models import Model, Params, count_parameters
from mtjax.native import build, pack_weights, packed_matmul, quantize_int8
from mtjax.native.bandwidth import measure_bandwidth

# Weights that stay in the second cache, and so many rows that only arithmetic counts.
_K, _N, _ROWS, _CALLS = 384, 256, 96, 20


class Point(NamedTuple):
  """A pass of some entries."""

  entries: int
  seconds: float  # median of the interleaved rounds
  cost: float  # median over rounds of this pass over that of one entry: L(n)
  limit: float  # seconds of what takes longer alone, reading the weights or multiplying them
  products: float  # seconds of the products alone (`products_alone`): median of the same rounds
  read: float  # seconds in which memory delivers the weights


def curve(
  model: Model,
  params: Params,
  entries: Sequence[int],
  *,
  threads: int,
  capacity: int = 256,
  rounds: int = 9,
  progress: Callable[[str], None] = lambda what: None,
) -> list[Point]:
  """Returns L(n) for every number of entries, over a cache that is half full.

  Rounds are interleaved: all numbers once, then again, each with the products of its pass alone. A
  pass computes logits of all entries, as verification does. params: packed. Raises ValueError
  unless the first number is 1.
  """
  if not entries or entries[0] != 1:
    raise ValueError(f"entries must begin with 1, which the others are compared with: {entries}")
  before = build.threads()
  build.set_threads(threads)
  try:
    passes = {n: _pass(model, params, n, capacity) for n in entries}
    products = {n: products_alone(model, params, n) for n in entries}
    seconds: dict[int, list[float]] = {n: [] for n in entries}
    alone: dict[int, list[float]] = {n: [] for n in entries}
    for number in range(rounds):
      progress(f"round {number + 1} of {rounds}")
      for n in entries:
        seconds[n].append(_timed(passes[n]))
        alone[n].append(_timed(products[n]))
    read, rate = read_seconds(params, threads), arithmetic_rate(_type_read(params))
  finally:
    build.set_threads(before)
  operations = 2 * count_parameters(model.shapes())
  return [
    Point(
      n,
      float(np.median(seconds[n])),
      float(np.median(np.array(seconds[n]) / np.array(seconds[1]))),
      max(read, n * operations / rate),
      float(np.median(alone[n])),
      read,
    )
    for n in entries
  ]


def bytes_read(params: Params) -> int:
  """Returns the bytes of weights that a pass reads: without a table that the head does not use."""
  return sum(leaf.nbytes for leaf in _leaves_read(params))


def _leaves_read(params: Params) -> list:
  inner = {name: value for name, value in params.items() if name != "embedding"}
  return jax.tree.leaves(inner if "head" in params else params)


def _type_read(params: Params) -> np.dtype:
  """Returns the type of most weights that a pass reads."""
  return max(_leaves_read(params), key=lambda leaf: leaf.size).dtype


def read_seconds(params: Params, threads: int) -> float:
  """Returns the seconds in which memory delivers the weights that one pass reads."""
  size = bytes_read(params)
  return size / measure_bandwidth(size, threads) / 1e9


def arithmetic_rate(weights: DTypeLike) -> float:
  """Returns the operations per second of the native product where memory does not count."""
  kernel, scale = np.random.default_rng(0).normal(size=(_K, _N)).astype(np.float32), None
  if weights == jnp.int8:
    kernel, scale = quantize_int8(kernel)
  packed = pack_weights(kernel, weights)

  @jax.jit
  def many(x):
    def once(_, x):
      y = packed_matmul(x, packed, scale, n=_N)
      return x + 1e-30 * y[:, :1]

    return jax.lax.fori_loop(0, _CALLS, once, x)

  x = jnp.ones((_ROWS, _K))
  jax.block_until_ready(many(x))
  best = min(_timed(lambda: many(x)) for _ in range(7))
  return 2 * _K * _N * _ROWS * _CALLS / best


def _pass(model, params, n, capacity) -> Callable:
  @jax.jit
  def forward(params, cache):
    entries = frontier_lib.causal(jnp.ones((1, n), jnp.int32), start=cache.length)
    out = model.forward(params, entries, cache)
    return out.logits, out.kv

  cache = model.allocate(1, capacity)
  cache = cache.replace(length=jnp.full((1,), capacity // 2, jnp.int32))
  run = functools.partial(forward, params, cache)
  jax.block_until_ready(run())
  return run


def _timed(run) -> float:
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began


def rows_of(points: Sequence[Point], **fields: Any) -> Iterator[dict]:
  """Yields the points as JSON values, with the same further fields in each."""
  for point in points:
    yield dict(fields, **point._asdict())
