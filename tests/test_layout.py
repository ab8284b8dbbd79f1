"""The layout of the repository: where files may be, and which module may import which.

The rules are those of CONTRIBUTING.md, "Layout"; each has a test that plants a violation.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.source import CODE, ROOT, imported, modules, sources, within

# From the bottom to the top. A package or file may import itself and those of the lines above it;
# every package and every file of the root has a line.
ORDER = (
  "arguments",
  "display",
  "types",
  "native",
  "hosts",
  "sharding",
  "sampling",
  "cache",
  "frontier",
  "models",
  "trees",
  "rounds",
  "constraints",
  "draft",
  "verify",
  "tuning",
  "decode",
  "data",
  "text",
  "anysubset",
  "diffusion",
  "checkpoints",
  "pretrained",
  "planning",
  "registry",
  "evaluate",
  "train",
  "bench",
  "report",
  "cli",
  "recipes",
)
ROOT_FILES = (
  "__init__",
  "arguments",
  "cache",
  "frontier",
  "pretrained",
  "text",
  "types",
)
ENGINE = ("rounds", "draft", "verify", "tuning", "decode", "anysubset", "diffusion")
MEASURING = ("evaluate", "bench", "report")
MAX_FILES = 14  # largest number of files in a folder; the 15th needs a subfolder
MAX_LINES = 400
# Configs and tests are records: one file per method or subject, side by side.
RECORDS = ("configs", "tests")


def package(module: str) -> str:
  """Returns the part of `mtjax.<part>...` that has a line in ORDER."""
  return module.removeprefix("mtjax").removeprefix(".").split(".")[0]


def mentioned(tree: ast.Module) -> dict[str, int]:
  """Returns the strings that name a module of the project, which may be imported by them."""
  strings = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      first, *rest = node.value.split(".")
      if first in CODE and rest and all(part.isidentifier() for part in rest):
        strings[node.value] = node.lineno
  return strings


def upward(path: Path, tree: ast.Module) -> list[str]:
  """Returns a line for each import of a file that does not point down, or if it has no place."""
  lines = []
  importer = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
  rank = {name: i for i, name in enumerate(ORDER)}
  if path.parts[0] == "mtjax" and importer != "mtjax" and package(importer) not in rank:
    return [f"{path} is in no package that ORDER names"]
  for name, line in (imported(path, tree) | mentioned(tree)).items():
    if path.parts[0] == "kernels_pallas":
      wrong = within(name, "mtjax")
    elif within(name, "mtjax") and importer != "mtjax":
      wrong = rank.get(package(name), len(rank)) > rank[package(importer)]
    else:
      wrong = False
    if wrong or name.split(".")[0] in ("experiments", "configs", "tests"):
      lines.append(f"{path}:{line} imports {name}")
  return lines


def measuring(path: Path, tree: ast.Module) -> list[str]:
  """Returns a line for each import in the engine of a package that measures or reports."""
  if path.parts[0] != "mtjax" or path.parts[1] not in ENGINE:
    return []
  return [
    f"{path}:{line} imports {name}"
    for name, line in (imported(path, tree) | mentioned(tree)).items()
    if within(name, "mtjax") and package(name) in MEASURING
  ]


def edges(files: dict[Path, ast.Module]) -> dict[str, set[str]]:
  """Returns the modules of the library that each of its modules imports, anywhere in the file."""
  known = set(modules())
  out = {}
  for path, tree in files.items():
    importer = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    names = (n if n in known else n.rpartition(".")[0] for n in imported(path, tree))
    out[importer] = {name for name in names if name in known and name != importer}
  return out


def circles(graph: dict[str, set[str]]) -> list[str]:
  """Returns one line per circle of modules that import each other, directly or through others."""
  lines, done, path = [], set(), []

  def visit(module):
    if module in path:
      lines.append(" -> ".join([*path[path.index(module) :], module]))
    elif module not in done:
      path.append(module)
      for other in sorted(graph.get(module, ())):
        visit(other)
      done.add(path.pop())

  for module in sorted(graph):
    visit(module)
  return lines


def crowded(paths: Sequence[Path]) -> list[str]:
  """Returns one line per folder of code with more files than MAX_FILES."""
  count = Counter(path.parent for path in paths if path.parts[0] not in RECORDS)
  return [f"{folder} holds {n} files" for folder, n in count.items() if n > MAX_FILES]


def closed(path: Path, tree: ast.Module) -> list[str]:
  """Returns a line for each place where the engine tests what a method is.

  Such tests are `isinstance` of a method or drafter, and `getattr` of a member that its Protocol
  may have.
  """
  lines = []
  if path.parts[0] != "mtjax" or path.parts[1] not in (*ENGINE, "train"):
    return lines
  for node in ast.walk(tree):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
      subject = ast.unparse(node.args[0]).split(".")[-1]
      asks = node.func.id == "isinstance" or (
        node.func.id == "getattr" and len(node.args) == 3  # a default: it may be missing
      )
      if asks and subject in ("method", "drafter", "verifier", "objective"):
        if node.func.id == "isinstance" and ast.unparse(node.args[1]) == "str":
          continue  # a name or the thing itself
        lines.append(f"{path}:{node.lineno} {ast.unparse(node)}")
  return lines


def twice(files: dict[Path, ast.Module]) -> list[str]:
  """Returns one line per name that several public classes of the library share."""
  where = defaultdict(list)
  for path, tree in files.items():
    if path.parts[0] in ("mtjax", "kernels_pallas"):
      for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
          where[node.name].append(str(path))
  return [f"{name}: {', '.join(paths)}" for name, paths in where.items() if len(paths) > 1]


def test_dependencies_point_down():
  lines = [
    line
    for path, tree in sources().items()
    if path.parts[0] in ("mtjax", "kernels_pallas")
    for line in upward(path, tree)
  ]
  assert not lines, "move what is shared to the lower package:\n" + "\n".join(lines)


def test_the_root_holds_the_nouns_of_the_engine_and_nothing_else():
  names = sorted(path.stem for path in sources() if path.parent == Path("mtjax"))
  assert names == sorted(ROOT_FILES), "the rest goes into a package"


def test_every_package_has_a_line_and_every_line_a_package():
  names = {package(name) for name in modules() if within(name, "mtjax") and name != "mtjax"}
  assert names == set(ORDER)


def test_no_folder_is_crowded():
  lines = crowded(list(sources()))
  assert not lines, "make a subfolder:\n" + "\n".join(lines)


def test_no_file_is_long():
  long = [
    f"{path}: {count} lines"
    for path in sources()
    if (count := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > MAX_LINES
  ]
  assert not long, "one file, one idea:\n" + "\n".join(long)


def test_imports_run_in_no_circle():
  files = {p: t for p, t in sources().items() if p.parts[0] in ("mtjax", "kernels_pallas")}
  lines = circles(edges(files))
  assert not lines, "\n".join(lines)


def test_what_is_measured_does_not_know_what_measures():
  lines = [line for path, tree in sources().items() for line in measuring(path, tree)]
  assert not lines, "\n".join(lines)


def test_the_engine_uses_members_of_methods_and_not_their_types():
  lines = [line for path, tree in sources().items() for line in closed(path, tree)]
  assert not lines, "make it a member of the Protocol:\n" + "\n".join(lines)


def test_a_public_class_has_a_name_of_its_own():
  lines = twice(sources())
  assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
  ("path", "code"),
  [
    ("mtjax/cache.py", "from mtjax.draft import chain"),
    ("mtjax/models/transformer.py", "from ..evaluate import perplexity"),
    ("mtjax/frontier.py", "import mtjax.models"),
    ("mtjax/models/transformer.py", "def f():\n  import mtjax.train.loop"),
    ("mtjax/report/terminal.py", "from experiments import decode"),
    ("mtjax/report/comparison.py", 'importlib.import_module("configs.decode.drafter")'),
    ("mtjax/decode/adaptive.py", 'run("mtjax.bench.systems")'),
    ("mtjax/report/results.py", "from mtjax.recipes import resgen"),
    ("mtjax/cli/train.py", "import mtjax.recipes.resgen.loss"),
    ("mtjax/scheduling/plan.py", "import numpy"),
    ("mtjax/tuning/plan.py", "from mtjax.decode import adaptive"),
    ("mtjax/stray.py", "import numpy"),
    ("kernels_pallas/frontier_attention/api.py", "from mtjax import types"),
  ],
)
def test_the_order_check_sees(path, code):
  assert upward(Path(path), ast.parse(code))


def test_the_crowd_check_sees():
  paths = [Path(f"mtjax/draft/file_{i}.py") for i in range(MAX_FILES)]
  assert not crowded(paths)
  assert crowded([*paths, Path("mtjax/draft/one_more.py")])


def test_the_circle_check_sees():
  planted = {
    Path("mtjax/registry/drafters.py"): ast.parse("def f():\n  from mtjax import pretrained"),
    Path("mtjax/pretrained.py"): ast.parse("from mtjax.registry import drafters"),
  }
  assert circles(edges(planted))


def test_the_measuring_check_sees():
  code = ast.parse("def f():\n  from mtjax.bench import repeat")
  assert measuring(Path("mtjax/decode/adaptive.py"), code)
  assert not measuring(Path("mtjax/train/loop.py"), code)


@pytest.mark.parametrize(
  "code", ["if isinstance(method, Confidence): ...", 'check = getattr(self.drafter, "check", None)']
)
def test_the_method_check_sees(code):
  assert closed(Path("mtjax/decode/speculative.py"), ast.parse(code))


def test_the_method_check_sees_objectives():
  code = ast.parse("if isinstance(objective, Loss): ...")
  assert closed(Path("mtjax/train/step.py"), code)


def test_the_name_check_sees():
  one = {Path("mtjax/types.py"): ast.parse("class Verdict: ...")}
  assert not twice(one)
  assert twice(one | {Path("mtjax/bench/repeat.py"): ast.parse("class Verdict: ...")})
