"""Importing needs memory for the parameters, but not for a second copy of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.models import Model, TransformerConfig, uniform_layers

ROOT = Path(__file__).resolve().parents[2]
MB = 1 << 20

pytestmark = pytest.mark.skipif(
  not Path("/proc/self/status").exists(), reason="memory is read from /proc: run this on Linux"
)


def measure(folder, layers, dim, shard_bytes):
  """Saves a Llama of random bfloat16 weights, and loads it in a process of its own."""
  config = TransformerConfig(
    vocab_size=32000,
    dim=dim,
    heads=dim // 64,
    kv_heads=dim // 128,
    head_dim=64,
    mlp_dim=3 * dim,
    layers=uniform_layers(layers),
    tied=False,
  )
  model = Model(config)
  rng = np.random.default_rng(0)

  def sampled(leaf):
    bits = rng.integers(0x3C00, 0x3F80, leaf.shape, np.uint16)
    return bits.view(ml_dtypes.bfloat16)

  checkpoints.save(folder, model, jax.tree.map(sampled, model.shapes()), shard_bytes=shard_bytes)
  run = subprocess.run(
    [sys.executable, str(Path(__file__).parent / "load_memory.py"), str(folder)],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  result = json.loads(run.stdout)
  stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
  assert abs(stored - result["size"]) < MB
  return result


def test_importing_needs_no_second_copy(tmp_path):
  result = measure(tmp_path, layers=4, dim=512, shard_bytes=40 * MB)
  size = result["size"]
  assert size > 70 * MB
  # Measured: 26 MB more, most of them code that is loaded. A second copy would be 87 MB.
  assert result["peak"] - result["before"] < size + 45 * MB, result


@pytest.mark.slow
def test_a_checkpoint_of_a_gigabyte_takes_less_than_one_and_a_third(tmp_path):
  result = measure(tmp_path, layers=27, dim=1152, shard_bytes=5 * 10**9)
  print(f"{result['size'] / 1e9:.3f} GB of weights, peak {result['peak'] / 1e9:.3f} GB")
  assert result["size"] > 1e9 and result["peak"] < 1.35e9, result
