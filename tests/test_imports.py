"""Imports: where linen and heavy packages are allowed, no deprecated names; and the packaging."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from tests.source import ROOT, sources, used, within

HEAVY = (
  "tensorflow_datasets",
  "tensorflow",
  "grain",
  "torch",
  "transformers",
  "matplotlib",
  "orbax",
)

DEPRECATED = {
  "jax.experimental.shard_map": "jax.shard_map",
  "jax.experimental.pjit": "jax.jit",
  "jax.experimental.maps": "jax.make_mesh",
  "jax.pmap": "jax.jit with shardings",
  "jax.pjit": "jax.jit",
  "jax.xmap": "jax.shard_map",
  "jax.tree_map": "jax.tree.map",
  "jax.tree_util.tree_map": "jax.tree.map",
  "jax.tree_util.tree_leaves": "jax.tree.leaves",
  "jax.tree_util.tree_flatten": "jax.tree.flatten",
  "jax.random.PRNGKey": "jax.random.key",
  "jax.core.Primitive": "jax.extend.core.Primitive",
  "jax.interpreters.xla": "jax.extend",
  "jax.experimental.pallas.triton": "jax.experimental.pallas.mosaic_gpu",
  "jax.experimental.pallas.core_map": "pl.kernel",
  "jax.experimental.pallas.load": "ref[...]",
  "jax.experimental.pallas.store": "ref[...] = x",
  "jax.experimental.pallas.dot": "jnp.dot",
  "jax.experimental.pallas.tpu.TPUCompilerParams": "pltpu.CompilerParams",
  "jax.experimental.host_callback": "jax.experimental.io_callback",
  "flax.optim": "optax",
  "flax.training.checkpoints": "orbax.checkpoint",
}


def deprecated(path: Path, tree: ast.Module) -> list[str]:
  return [
    f"{path}:{line} uses {name}; use {better}"
    for name, line in used(path, tree).items()
    for old, better in DEPRECATED.items()
    if within(name, old)
  ]


def test_linen_is_imported_only_by_the_models():
  uses = [
    f"{path}:{line}"
    for path, tree in sources().items()
    if path.parts[:2] != ("mtjax", "models")
    for name, line in used(path, tree).items()
    if within(name, "flax.linen")
  ]
  assert not uses, f"call the model's pure forward instead of using linen in {uses}"


def test_nothing_deprecated_is_used():
  lines = [line for path, tree in sources().items() for line in deprecated(path, tree)]
  assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
  "code",
  [
    "from jax.experimental.shard_map import shard_map",
    "from jax import pmap",
    "import jax\njax.tree_map(f, x)",
    "from jax.experimental import pallas as pl\npl.load(ref, 0)",
    "import jax.random as r\nr.PRNGKey(0)",
  ],
)
def test_the_deprecation_check_sees(code):
  assert deprecated(Path("mtjax/x.py"), ast.parse(code))


def test_import_is_light():
  """Packages for text, checkpoints and plots take seconds to import: they are loaded on use."""
  code = "import sys, mtjax, kernels_pallas; print(*sys.modules)"
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  heavy = set(HEAVY) & set(run.stdout.split())
  assert not heavy, f"import {sorted(heavy)} inside the functions that need it"


def test_launchers_can_be_imported_side_by_side():
  """Launchers may have flags of one name, and only the one that is run adds its own to absl's."""
  names = ("decode", "infill", "train", "evaluate")
  code = f"from absl.flags import FLAGS; from mtjax.cli import {', '.join(names)}; "
  code += "print('model' in FLAGS)"
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert run.stdout == "False\n", run.stderr


def test_setup_packages_the_library_and_nothing_else(monkeypatch):
  arguments = {}
  monkeypatch.setattr(setuptools, "setup", arguments.update)
  monkeypatch.chdir(ROOT)
  exec(
    compile((ROOT / "setup.py").read_text(), str(ROOT / "setup.py"), "exec"),
    {"__name__": "__main__", "__file__": str(ROOT / "setup.py")},
  )
  folders = {
    ".".join(f.parent.relative_to(ROOT).parts)
    for top in ("mtjax", "kernels_pallas")
    for f in (ROOT / top).rglob("*.py")
  }
  assert set(arguments["packages"]) == folders, "a folder with code has no __init__.py"
  assert arguments["python_requires"] == ">=3.11"
  extras = {"cuda", "tpu", "hf", "viz", "tb", "dev", "parity", "aot", "gguf", "smollm2"}
  assert extras <= set(arguments["extras_require"])
