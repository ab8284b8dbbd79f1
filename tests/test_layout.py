"""The shape of the source: who imports whom, what is heavy, deprecated or packaged."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parent.parent
CODE = ("mtjax", "kernels_pallas", "configs", "experiments", "tests", "colab")

# README, "How it is built". A module may import its own layer and the ones below; one that is not
# listed belongs to the layer of decode, train, evaluate and report.
LAYERS = (
  ("types", "arguments", "buckets", "native", "choice"),
  (
    "models",
    "trees",
    "cache",
    "frontier",
    "attention",
    "sharding",
    "sampling",
    "stopping",
    "rounds",
    "prefill",
    "stopwatch",
  ),
  ("draft", "verify", "anysubset", "diffusion", "tuning"),
)
LIBRARY = len(LAYERS)

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


@functools.cache
def sources() -> dict[Path, ast.Module]:
  """Every Python file of the project, parsed, by path relative to the root."""
  files = [f for folder in CODE for f in sorted((ROOT / folder).rglob("*.py"))]
  return {
    f.relative_to(ROOT): ast.parse(f.read_text(encoding="utf-8"), filename=str(f)) for f in files
  }


def imported(path: Path, tree: ast.Module) -> dict[str, int]:
  """Absolute names of what a file imports, anywhere in it, with the line."""
  names = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name: node.lineno for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        base = ".".join([*path.parts[: -node.level], *filter(None, [node.module])])
      names |= {f"{base}.{alias.name}": node.lineno for alias in node.names}
  return names


def used(path: Path, tree: ast.Module) -> dict[str, int]:
  """Full dotted names that a file imports or reaches through an imported alias, with the line."""
  names, aliases = imported(path, tree), {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        first = alias.name.split(".")[0]
        aliases[alias.asname or first] = alias.name if alias.asname else first
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
  for node in ast.walk(tree):
    parts, inner = [], node
    while isinstance(inner, ast.Attribute):
      parts.append(inner.attr)
      inner = inner.value
    if parts and isinstance(inner, ast.Name) and inner.id in aliases:
      names[".".join([aliases[inner.id], *reversed(parts)])] = node.lineno
  return names


def within(name: str, prefix: str) -> bool:
  return name == prefix or name.startswith(prefix + ".")


def layer(module: str) -> int:
  """Layer of `mtjax.<name>...`; higher layers may import lower ones, all but the root package."""
  name = module.removeprefix("mtjax").removeprefix(".").split(".")[0]
  return next((i for i, names in enumerate(LAYERS) if name in names), LIBRARY)


def upward(path: Path, tree: ast.Module) -> list[str]:
  """The imports of one file of the library that do not point down."""
  found = []
  for name, line in imported(path, tree).items():
    if path.parts[0] == "kernels_pallas":
      wrong = within(name, "mtjax")
    elif within(name, "mtjax"):
      own = ".".join(path.with_suffix("").parts)
      wrong = own != "mtjax.__init__" and layer(name) > layer(own)
    else:
      wrong = False
    if wrong or name.split(".")[0] in ("experiments", "configs", "tests"):
      found.append(f"{path}:{line} imports {name}")
  return found


def deprecated(path: Path, tree: ast.Module) -> list[str]:
  return [
    f"{path}:{line} uses {name}; use {better}"
    for name, line in used(path, tree).items()
    for old, better in DEPRECATED.items()
    if within(name, old)
  ]


def test_linen_is_imported_only_by_the_models():
  found = [
    f"{path}:{line}"
    for path, tree in sources().items()
    if path.parts[:2] != ("mtjax", "models")
    for name, line in used(path, tree).items()
    if within(name, "flax.linen")
  ]
  assert not found, f"call the model's pure forward instead of using linen in {found}"


def test_dependencies_point_down():
  found = [
    line
    for path, tree in sources().items()
    if path.parts[0] in ("mtjax", "kernels_pallas")
    for line in upward(path, tree)
  ]
  assert not found, "move what is shared to the lower layer:\n" + "\n".join(found)


def test_nothing_deprecated_is_used():
  found = [line for path, tree in sources().items() for line in deprecated(path, tree)]
  assert not found, "\n".join(found)


@pytest.mark.parametrize(
  ("path", "code"),
  [
    ("mtjax/cache.py", "from mtjax.draft import chain"),
    ("mtjax/models/transformer.py", "from ..evaluate import perplexity"),
    ("mtjax/frontier.py", "import mtjax"),
    ("mtjax/models/transformer.py", "def f():\n  import mtjax.train.loop"),
    ("mtjax/report/terminal.py", "from experiments import decode"),
    ("kernels_pallas/frontier_attention/api.py", "from mtjax import types"),
  ],
)
def test_the_layer_check_sees(path, code):
  assert upward(Path(path), ast.parse(code))


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
  """Text, checkpoints and plots cost seconds to import and are loaded where they are used."""
  code = "import sys, mtjax, kernels_pallas; print(*sys.modules)"
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  heavy = set(HEAVY) & set(run.stdout.split())
  assert not heavy, f"import {sorted(heavy)} inside the functions that need it"


def test_setup_packages_the_library_and_nothing_else(monkeypatch):
  given = {}
  monkeypatch.setattr(setuptools, "setup", given.update)
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
  assert set(given["packages"]) == folders, "a folder with code has no __init__.py"
  assert given["python_requires"] == ">=3.11"
  assert {"cuda", "tpu", "hf", "viz", "tb", "dev", "parity", "aot"} <= set(given["extras_require"])
