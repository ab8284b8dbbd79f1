"""README is short and true: its length, its pictures, its links, its numbers, its commands."""

import ast
import re
from pathlib import Path

import pytest

from docs.make.api import MODULES
from mtjax.registry.methods import filling
from mtjax.verify import VERIFIERS
from tests.source import ROOT, modules, sources

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(page: Path) -> list[str]:
  """Returns the targets of links and pictures, without addresses of the web."""
  text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
  targets = re.findall(r"\]\(([^)\s]+)\)", text)
  return [target.split("#")[0] for target in targets if not re.match(r"https?:|#", target)]


def commands(page: Path) -> list[str]:
  return re.findall(r"python -m ((?:experiments|docs|mtjax)[\w.]*)", page.read_text("utf-8"))


def test_it_is_short_and_has_three_pictures():
  text = README.read_text(encoding="utf-8")
  assert len(text.splitlines()) <= 150
  pictures = re.findall(r"!\[[^]]+\]\((docs/pictures/\w+\.png)\)", text)
  assert pictures == [f"docs/pictures/{name}.png" for name in ("tree", "speed", "mask")]


def test_it_counts_what_there_is():
  text = README.read_text(encoding="utf-8")
  assert f"the {len(VERIFIERS)} verifiers and the {len(filling())} fill methods" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_points_at_exists(page):
  for target in links(page):
    # Pages of the reference are made with the site.
    reference = target.split("api/")[-1] if "api/" in target else ""
    assert reference or (page.parent / target).exists(), f"{target} does not exist"
  for module in commands(page):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_every_target_of_make_exists():
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  for page in PAGES:
    for target in re.findall(r"^\s*make ([a-z-]+)|`make ([a-z-]+)", page.read_text("utf-8"), re.M):
      name = "".join(target)
      assert re.search(rf"^{name}:", makefile, re.M), f"{page.name}: make {name}"


def test_the_reference_has_every_package_that_says_what_is_public():
  known = set(modules())
  assert set(MODULES) <= known
  for path, tree in sources().items():
    if path.parts[0] == "mtjax" and path.name == "__init__.py" and "__all__" in ast.unparse(tree):
      assert ".".join(path.parent.parts) in MODULES, f"add {path.parent} to docs/make/api.py"


def test_its_pictures_can_be_made():
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  from docs.make import concepts

  example = concepts.record()
  assert len(concepts.tree_picture(example).axes) == 3
  assert len(concepts.mask_picture(example).axes) == 2
