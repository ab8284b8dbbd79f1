"""Checksums of arrays that are spread: any part, in any order, and any flipped bit."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.checkpoints import checksums as lib

SHAPE = (5, 3, 4)


def array(dtype):
  return np.asarray(jnp.asarray(np.random.default_rng(0).normal(size=SHAPE) * 9, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint32"])
def test_the_sum_of_parts_is_the_sum_of_the_whole(dtype):
  x = array(dtype)
  parts = [(0, 0), (0, 2), (3, 0), (3, 2)]
  ends = {0: 3, 3: 5, 2: 4}
  total = 0
  for row, column in parts:
    last = 4 if column else 2
    part = x[row : ends[row], :, column:last]
    total += lib._sum(part, SHAPE, (row, 0, column))
  assert total % (1 << 64) == lib._sum(x, SHAPE, (0, 0, 0))


def test_every_flipped_bit_and_every_swap_is_seen(monkeypatch):
  monkeypatch.setattr(lib, "_ROWS", 7)
  x = array("float32")
  expected = lib._sum(x, SHAPE, (0, 0, 0))
  for place in range(x.size):
    for bit in (0, 13, 31):
      other = x.copy().reshape(-1)
      other.view(np.uint32)[place] ^= np.uint32(1 << bit)
      assert lib._sum(other.reshape(SHAPE), SHAPE, (0, 0, 0)) != expected
  assert lib._sum(x[::-1], SHAPE, (0, 0, 0)) != expected
  assert lib._sum(np.zeros(()), (), ()) == 1


def test_an_old_checkpoint_with_a_crc_alone_is_still_checked():
  leaf = jnp.arange(6.0)
  stored = dict(w=lib.checksums(dict(w=leaf))["w"])
  assert set(stored["w"]) == {"crc"}
  assert lib.differs(dict(w=leaf), stored) == ""
  assert lib.differs(dict(w=leaf.at[3].set(0)), stored) == "w"


def test_a_spread_array_that_one_process_now_holds_is_checked_by_its_sum():
  leaf = jnp.arange(6.0)
  stored = dict(w=dict(crc=None, sum=lib._sum(np.asarray(leaf), (6,), (0,))))
  assert lib.differs(dict(w=leaf), stored) == ""
  assert lib.differs(dict(w=leaf.at[3].set(0)), stored) == "w"
