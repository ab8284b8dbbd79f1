"""Peak of host memory while a checkpoint is imported.

python tests/checkpoints/memory_of_import.py MEGABYTES

Writes a random Llama of so many MB (float32, two files), imports it in a process of its own and
prints, in bytes: the tensors, what was resident before, the most that was resident. Figure:
1000 MB need 1.23 GB at the peak, 0.19 GB of which are Python and JAX (Linux, CPU).
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from mtjax import checkpoints
from mtjax.checkpoints import families, layout, writing
from mtjax.models import Model, TransformerConfig, uniform_layers


def write(folder: Path, megabytes: int) -> int:
  """Tensors one at a time, so that this process stays small too; returns their bytes."""
  dim, layers = (1024, 10) if megabytes >= 800 else (256, 8)
  heads, kv_heads, head_dim, mlp_dim = dim // 64, dim // 256, 64, 4 * dim
  in_layers = layers * dim * (2 * head_dim * (heads + kv_heads) + 3 * mlp_dim)
  config = TransformerConfig(
    # The rest of the size is two tables: the largest tensor is a fifth of the model or more.
    vocab_size=(megabytes * 10**6 // 4 - in_layers) // (2 * dim),
    dim=dim,
    heads=heads,
    kv_heads=kv_heads,
    head_dim=head_dim,
    mlp_dim=mlp_dim,
    layers=uniform_layers(layers),
    tied=False,
  )
  family, raw = families.express(config)
  shapes = layout.stored_shapes(family.recipes(config))
  given = {name: (np.dtype(np.float32), shape) for name, shape in shapes.items()}
  rng = np.random.default_rng(0)
  tensors = ((name, rng.random(shape, dtype=np.float32)) for name, shape in shapes.items())
  folder.mkdir()
  writing.write_tensors(folder, given, tensors, shard_bytes=megabytes * 600_000)
  writing.write_json(folder / "config.json", {"model_type": family.model_type, **raw})
  return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def read(folder: Path, warm: Path) -> dict[str, int]:
  checkpoints.load(warm)  # so that code that is loaded once is not counted
  before = resident()
  _, params = checkpoints.load(folder)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
  return dict(before=before, peak=resident())


def resident() -> int:
  """The most bytes that this process had in memory so far."""
  status = Path("/proc/self/status")
  if status.is_file():
    # Not ru_maxrss, which begins with what the parent process had.
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return most if sys.platform == "darwin" else most * 1024


def measure(megabytes: int) -> dict[str, int]:
  with tempfile.TemporaryDirectory() as temporary:
    folder, warm = Path(temporary) / "model", Path(temporary) / "warm"
    size = write(folder, megabytes)
    config = TransformerConfig(
      vocab_size=8, dim=8, heads=2, kv_heads=1, head_dim=4, mlp_dim=8, layers=uniform_layers(1)
    )
    checkpoints.save(warm, Model(config), Model(config).init(jax.random.key(0)))
    command = [sys.executable, __file__, "read", str(folder), str(warm)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(size=size, **json.loads(run.stdout))


if __name__ == "__main__":
  if sys.argv[1] == "read":
    print(json.dumps(read(Path(sys.argv[2]), Path(sys.argv[3]))))
  else:
    print(json.dumps(measure(int(sys.argv[1]))))
