"""Run by test_stratified.py in a process with four CPU devices; prints a JSON object."""

import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mtjax import sharding  # noqa: E402
from mtjax.train.losses.any_subset import any_subset_loss  # noqa: E402
from tests.train.strata import MASKING, MODEL, one_text, rows_of_strata  # noqa: E402


def strata() -> list[float]:
  """Returns the strata's rows for four devices and two parts: two rows per part and device."""
  mesh = sharding.make_mesh(4, 1)
  return rows_of_strata(2, put=lambda batch: sharding.shard_batch(batch, mesh))


def choices() -> int:
  """Returns the number of random choices that differ between four devices and one."""
  prepare = jax.jit(any_subset_loss(MODEL, MASKING).prepare)
  key, step, mesh = jax.random.key(3), jnp.asarray(0), sharding.make_mesh(4, 1)
  one = prepare(one_text(), key, step)
  four = prepare(sharding.shard_batch(one_text(), mesh), key, step)
  return sum(int(np.sum(np.asarray(one[k]) != np.asarray(four[k]))) for k in one)


def main() -> None:
  assert len(jax.devices()) == 4
  json.dump(dict(strata=strata(), choices=choices()), sys.stdout)


if __name__ == "__main__":
  main()
