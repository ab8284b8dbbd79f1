"""Run by test_stratified.py in a process with four CPU devices; prints a JSON object."""

import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from mtjax import sharding  # noqa: E402
from mtjax.train.losses.any_subset import any_subset_loss  # noqa: E402
from mtjax.train.step import init_state, make_step  # noqa: E402
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


def xlnet_step() -> float:
  """Returns the largest difference of states after two steps: one device; 2 x 2 in two parts."""
  # Not adamw: it makes rounding of a gradient that is 0 into an update of full size.
  optimizer = optax.sgd(1.0, momentum=0.9)
  state = init_state(MODEL, optimizer, seed=0)
  loss = any_subset_loss(MODEL, MASKING)
  mesh = sharding.make_mesh(2, 2)
  shardings = sharding.state_shardings(state, state.params, mesh)
  one = jax.jit(make_step(loss, optimizer))
  four = jax.jit(make_step(loss, optimizer, accumulate=2), out_shardings=(shardings, None))
  spread, batch = jax.device_put(state, shardings), one_text(4, 9)
  for _ in range(2):
    state, _ = one(state, batch)
    spread, _ = four(spread, sharding.shard_batch(batch, mesh))
  bias = spread.params["layer_0"]["attention"]["position_bias"].sharding.spec
  assert bias == sharding.P(sharding.MODEL, None), bias
  pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(spread.params), strict=True)
  return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def main() -> None:
  assert len(jax.devices()) == 4
  json.dump(dict(strata=strata(), choices=choices(), xlnet_step=xlnet_step()), sys.stdout)


if __name__ == "__main__":
  main()
