"""Weights on huge pages are the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.native import packed_weights
from mtjax.native.memory import huge_array, on_huge_pages


def test_the_tree_is_the_same_in_one_block():
  keys = jax.random.split(jax.random.key(0), 3)
  tree = {
    "a": jax.random.normal(keys[0], (700, 1001)),
    "b": (jax.random.normal(keys[1], (33, 7), jnp.bfloat16), jnp.zeros((0, 4)), jnp.float32(2)),
    "c": jax.random.randint(keys[2], (999,), -127, 128, jnp.int8),
  }
  placed = on_huge_pages(tree)
  jax.tree.map(np.testing.assert_array_equal, placed, tree)
  assert jax.tree.map(lambda x: (x.dtype, x.shape, x.sharding), placed) == jax.tree.map(
    lambda x: (x.dtype, x.shape, x.sharding), tree
  )
  if placed is not tree:
    starts = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(placed) if leaf.size]
    assert starts[0] % (2 << 20) == 0 and max(starts) - starts[0] < 4 << 20, "arrays were copied"
    del tree
    total = jax.jit(lambda t: sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(t)))
    assert np.isfinite(total(placed))


def test_a_tree_smaller_than_a_page_stays():
  tree = {"a": jnp.ones((10, 10))}
  assert on_huge_pages(tree) is tree


def test_arrays_that_are_not_on_a_cpu_stay():
  tree = {"a": np.ones((2000, 2000), np.float32)}
  assert on_huge_pages(tree) is tree


@pytest.mark.parametrize("stacked", [False, True], ids=["one kernel", "a stack"])
def test_packed_weights_stay_in_the_memory_that_was_made_for_them(stacked, monkeypatch):
  made = []

  def recorded(*shape_and_dtype):
    made.append(huge_array(*shape_and_dtype))
    return made[-1]

  monkeypatch.setattr(packed_weights, "huge_array", recorded)
  kernel = np.ones((96, 130), np.float32)
  packed = packed_weights.pack_stack([kernel]) if stacked else packed_weights.pack_weights(kernel)
  assert [packed.unsafe_buffer_pointer()] == [memory.ctypes.data for memory in made]
