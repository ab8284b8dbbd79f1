"""A commit writes the path and nothing else: row by row on a TPU, by a scatter elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.frontier_attention import dispatch as choice
from kernels_pallas.frontier_attention.cache_blocks import Cache
from mtjax.cache import KVCache, allocate
from mtjax.types import LayerKV
from tests.devices import on

ROWS, HEADS, SLOTS, WIDTH = 4, 2, 12, 4
# Entries of the frontier, entries of the path, and those committed in four rows, which already hold
# 0, 5, 9 and 12 entries.
CASES = {
  "all": (6, 6, (6, 6, 3, 0)),
  "some": (6, 6, (2, 0, 1, 0)),
  "a path of a few": (9, 3, (3, 2, 3, 0)),
  "more than fits": (6, 6, (6, 6, 6, 6)),
  "more than the path": (6, 2, (3, 2, 0, 5)),
  "one of many": (6, 1, (1, 0, 1, 1)),
  "one": (1, 1, (1, 0, 1, 1)),
  "as long as the cache": (12, 12, (12, 7, 12, 1)),
}


def _filled(rng, entries, rows=ROWS):
  """Returns a cache with NaN where nothing is committed, and a frontier's keys and values."""
  lengths = np.array([0, 5, 9, 12])[:rows]

  def normal(size):
    return rng.normal(size=(rows, HEADS, size, WIDTH)).astype(np.float32)

  empty = (np.arange(SLOTS) >= lengths[:, None])[:, None, :, None]
  old = LayerKV(*(np.where(empty, np.nan, normal(SLOTS)) for _ in "kv"))
  place = rng.integers(0, 99, (rows, SLOTS))
  cache = KVCache((old,), jnp.asarray(place, jnp.int32), jnp.asarray(lengths, jnp.int32))
  return jax.tree.map(jnp.asarray, cache), LayerKV(normal(entries), normal(entries))


def _expected(cache, new, position, path, count):
  cache, one = jax.tree.map(np.array, cache), path.shape[1]
  (old,) = cache.layers
  for row in range(len(path)):
    for n, entry in enumerate(path[row, : count[row]]):
      slot = cache.length[row] + n
      if slot < SLOTS:
        for side, other in zip(old, new, strict=True):
          side[row, :, slot] = other[row, :, entry]
        cache.position[row, slot] = position[row, entry]
  return jax.tree.map(jnp.asarray, cache).replace(
    length=jnp.asarray(cache.length + np.minimum(count, one))
  )


@pytest.mark.parametrize("rows", [1, ROWS])
@pytest.mark.parametrize("platform", ["tpu", "cpu"])
@pytest.mark.parametrize("name", CASES)
def test_a_commit_writes_the_path_and_nothing_else(name, platform, rows, monkeypatch):
  monkeypatch.setattr(choice, "platform_here", lambda: platform)
  entries, steps, count = CASES[name]
  rng = np.random.default_rng(0)
  cache, new = _filled(rng, entries, rows)
  position = rng.integers(0, 99, (rows, entries))
  path = np.stack([rng.permutation(entries)[:steps] for _ in range(rows)])
  count = np.array(count[:rows])
  # A function of this test's own: a program is kept by its function, whatever the platform.
  commit = jax.jit(lambda cache, *arrays: cache.commit(*arrays))
  after = commit(cache, [new], jnp.asarray(position), jnp.asarray(path), jnp.asarray(count))
  jax.tree.map(np.testing.assert_array_equal, after, _expected(cache, new, position, path, count))


@pytest.mark.parametrize("steps", [1, 6])
def test_on_a_tpu_a_commit_updates_slices_in_place(steps):
  """On a TPU a scatter over rows copies the cache twice, and a slice of one slot copies it once."""
  cache, new = _filled(np.random.default_rng(0), steps)
  path, count = jnp.zeros((ROWS, steps), jnp.int32), jnp.ones((ROWS,), jnp.int32)
  with on("TPU v5 lite"):
    program = jax.make_jaxpr(lambda cache: cache.commit([new], path, path, count))(cache)
  equations = program.jaxpr.eqns
  assert not [e for e in equations if e.primitive.name.startswith("scatter")]
  writes = [e for e in equations if e.primitive.name == "dynamic_update_slice"]
  assert len(writes) == 3 * ROWS  # keys, values and positions
  for write in writes:
    written = write.invars[1].aval.shape
    assert written[-2 if len(written) > 2 else -1] >= 8, written


@pytest.mark.parametrize("width, slots", [(64, 256), (80, 256), (128, 130)])
def test_a_tpu_gets_rows_that_its_kernel_reads(width, slots):
  make = functools.partial(
    allocate, batch=2, capacity=130, heads=[2], head_dim=width, dtype=jnp.bfloat16
  )
  with on("TPU v5 lite"):
    cache = jax.eval_shape(make)
    q = jax.ShapeDtypeStruct((2, 1, 4, width), jnp.bfloat16)
    old = cache.layers[0]
    k = jax.ShapeDtypeStruct((2, 2, 1, width), jnp.bfloat16)
    assert choice.why_not("tpu", q, k, Cache(old.k, old.v, cache.length)) is None
  assert cache.capacity == old.k.shape[2] == slots
  assert jax.eval_shape(make).capacity == 130
