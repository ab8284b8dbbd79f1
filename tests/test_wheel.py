"""The package as users install it: built, installed outside of a checkout, imported and run."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.source import ROOT, modules

PACKAGES = ("mtjax", "kernels_pallas")
# Packages that `pip install mtjax` does not install.
EXTRAS = (
  "huggingface_hub", "jinja2", "matplotlib", "tensorboardX", "torch", "transformers", "chex",
  "hypothesis", "pytest", "libtpu", "ctranslate2", "llama_cpp", "gguf",
  "xmanager", "lm_eval",
)  # fmt: skip
COMMANDS = ("decode", "infill", "train", "evaluate")


def called(*command, **settings):
  command = [str(part) for part in command]
  run = subprocess.run(command, capture_output=True, text=True, timeout=300, **settings)
  assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
  return run.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
  """The paths of the sdist and of the wheel that is built from it."""
  # They are built from a copy, because setuptools packs what an earlier build left in the tree.
  tree = tmp_path_factory.mktemp("tree")
  for package in PACKAGES:
    shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("setup.py", "pyproject.toml", "MANIFEST.in"):
    shutil.copy(ROOT / name, tree)
  for name in ("README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md"):
    shutil.copy(ROOT / name, tree)
  backend = tomllib.loads((tree / "pyproject.toml").read_text())["build-system"]["build-backend"]
  build = f"import {backend} as backend; backend.build_{{}}('{{}}')"
  called(sys.executable, "-c", build.format("sdist", "dist"), cwd=tree)
  (sdist,) = (tree / "dist").glob("*.tar.gz")
  # What pip does with the backend that pyproject.toml names, in one process in place of four.
  shutil.unpack_archive(sdist, tree / "unpacked")
  (unpacked,) = (tree / "unpacked").iterdir()
  called(sys.executable, "-c", build.format("wheel", tree / "dist"), cwd=unpacked)
  (wheel,) = (tree / "dist").glob("*.whl")
  return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
  """The bin folder of an environment with the wheel, and a folder to work in.

  It has the dependencies of the environment that runs the tests, but not its editable mtjax,
  because .pth files in folders that a .pth file adds are not read.
  """
  folder = tmp_path_factory.mktemp("installed")
  venv.create(folder / "env", with_pip=False, symlinks=True)
  binaries = folder / "env" / "bin"
  pip = (sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--no-deps")
  called(*pip, "--no-index", distributions[1], cwd=folder)
  scheme = sysconfig.get_paths()
  (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
  (packages / "dependencies.pth").write_text(f"{scheme['purelib']}\n{scheme['platlib']}\n")
  work = folder / "work"
  work.mkdir()
  return binaries, work


def environment():
  return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_distributions_hold_what_is_needed_and_nothing_else(distributions):
  sdist, wheel = distributions
  with tarfile.open(sdist) as archive:
    source = {name.partition("/")[2] for name in archive.getnames()}
  assert {"LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md", "setup.py"} <= source
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(archive.read(metadata).decode())
  tracked = {
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  }
  assert {name for name in names if ".dist-info/" not in name} == tracked
  assert tracked <= source
  assert {"mtjax/py.typed", "kernels_pallas/py.typed", "mtjax/native/small_matmul.cc"} <= tracked
  assert any(name.endswith("licenses/LICENSE") for name in names)
  assert (fields["Name"], fields["Author"]) == ("mtjax", "The mtjax authors")
  assert fields["License-Expression"] == "Apache-2.0" and fields["Summary"] and fields["Keywords"]


def test_every_module_can_be_imported_or_names_the_extra_that_it_needs(installed):
  binaries, work = installed
  code = f"""
import importlib, json, sys
for name in {EXTRAS!r}:
  sys.modules[name] = None  # importing it is an ImportError
refused = {{}}
for name in {sorted(modules())!r}:
  try:
    importlib.import_module(name)
  except ImportError as error:
    refused[name] = str(error)
print(json.dumps([importlib.import_module("mtjax").__file__, refused]))
"""
  shown = called(binaries / "python", "-c", code, cwd=work, env=environment())
  where, refused = json.loads(shown.splitlines()[-1])
  assert Path(where).is_relative_to(binaries.parent), "another mtjax was imported"
  needed = {"mtjax.data.templates.child", "mtjax.evaluate.harness.lm_eval"}
  assert set(refused) == needed, refused
  assert all("pip install mtjax[" in message for message in refused.values()), refused


def test_eight_tokens_are_decoded_outside_the_repository(installed):
  binaries, work = installed
  command = ("--config=lookup", "--prompt=def add(a, b):", "--config.max_tokens=8")
  called(binaries / "mtjax-decode", *command, "--output=run.json", cwd=work, env=environment())
  record = json.loads((work / "run.json").read_text(encoding="utf-8"))
  assert record["settings"]["method"] == "lookup"
  assert len(record["rows"][0]["tokens"]) == record["counters"]["tokens"] == 8


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_own_flags(installed, name):
  binaries, work = installed
  flag = dict(decode="--compare", infill="--picture", train="--workdir", evaluate="--judge")[name]
  run = subprocess.run(
    [str(binaries / f"mtjax-{name}"), "--help"],
    cwd=work, env=environment(), capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  assert f"mtjax-{name} --" in run.stdout and f"  {flag}:" in run.stdout, run.stdout + run.stderr
