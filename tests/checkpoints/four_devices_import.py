"""Run by test_mesh_import.py with four CPU devices, on a folder; prints facts as JSON."""

import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)

import numpy as np  # noqa: E402

from mtjax import checkpoints, sharding  # noqa: E402


def main(folder: str) -> None:
  mesh = sharding.make_mesh(2, 2)
  _, whole = checkpoints.load(folder)
  model, spread = checkpoints.load(folder, mesh=mesh)
  wanted = sharding.param_shardings(model.shapes(), mesh)
  same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), whole, spread)
  placed = jax.tree.map(lambda x, s: x.sharding == s, spread, wanted)
  qkv = spread["layer_0"]["attention"]["qkv"]["kernel"]
  facts = dict(
    same=all(jax.tree.leaves(same)),
    placed=all(jax.tree.leaves(placed)),
    whole=qkv.shape,
    part=qkv.addressable_shards[0].data.shape,
  )
  json.dump(facts, sys.stdout)


if __name__ == "__main__":
  main(sys.argv[1])
