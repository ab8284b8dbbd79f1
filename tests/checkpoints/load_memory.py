"""Loads a folder, for test_memory.py; prints bytes of memory before and at the peak as JSON."""

import json
import sys

import jax

from mtjax import checkpoints


def status(field: str) -> int:
  # getrusage does not help: a new process begins with the peak of the one that started it.
  with open("/proc/self/status", encoding="ascii") as file:
    line = next(line for line in file if line.startswith(field))
  return int(line.split()[1]) * 1024


if __name__ == "__main__":
  jax.block_until_ready(jax.device_put(0.0))
  before = status("VmRSS")
  _, params = checkpoints.load(sys.argv[1])
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  json.dump(dict(before=before, peak=status("VmHWM"), size=size), sys.stdout)
