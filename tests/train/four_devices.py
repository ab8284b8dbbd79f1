"""Run by test_stratified.py in a process with four CPU devices; prints a JSON object."""

import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mtjax import sharding  # noqa: E402
from mtjax.hosts import HostRows  # noqa: E402
from mtjax.train.losses.any_subset import any_subset_loss  # noqa: E402
from tests.train.strata import MASKING, MODEL, one_text, rows_of_strata  # noqa: E402


def strata() -> list[float]:
  """Returns the strata's rows for four devices and two parts: two rows per part and device."""
  mesh = sharding.make_mesh(4, 1)
  return rows_of_strata(2, put=lambda batch: jax.device_put(batch, sharding.batch_sharding(mesh)))


def choices() -> int:
  """Returns the number of random choices that differ between four devices and one."""
  prepare = jax.jit(any_subset_loss(MODEL, MASKING).prepare)
  key, step, mesh = jax.random.key(3), jnp.asarray(0), sharding.make_mesh(4, 1)
  one = prepare(one_text(), key, step)
  four = prepare(jax.device_put(one_text(), sharding.batch_sharding(mesh)), key, step)
  return sum(int(np.sum(np.asarray(one[k]) != np.asarray(four[k]))) for k in one)


def refusal() -> str:
  """Returns what a batch is told that does not divide over the devices."""
  try:
    HostRows.of(sharding.batch_sharding(sharding.make_mesh(4, 1)), 6)
  except ValueError as error:
    return str(error)
  return ""


def main() -> None:
  assert len(jax.devices()) == 4
  json.dump(dict(strata=strata(), choices=choices(), refusal=refusal()), sys.stdout)


if __name__ == "__main__":
  main()
