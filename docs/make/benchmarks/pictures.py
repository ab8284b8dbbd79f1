"""Pictures of results, each with the digest of the files that it shows in its metadata."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs.make.benchmarks.sections import RESULTS, ROOT
from mtjax.report import results, trie_warmup
from mtjax.report.speed import picture

TRIE = ROOT / "docs" / "pictures" / "trie_warmup.png"
TRIE_FILES = [RESULTS / f"trie_{name}.json" for name in ("gsm8k", "e2e", "rag", "capacities")]
SPEED = ROOT / "docs" / "pictures" / "speed.png"
SPEED_FILES = [RESULTS / "speculative_smollm2_intel.json"]
SPEED_SYSTEMS = {
  "transformers eager": "transformers",
  "transformers prompt lookup 10": "transformers, prompt lookup",
  "llama.cpp f16": "llama.cpp, 16 bits",
  "mtjax:ar": "mtjax, one token per pass",
  "mtjax:auto": "mtjax, auto",
  "mtjax:suffix": "mtjax, suffix",
}


def digest(paths: list[Path]) -> str:
  """Returns a digest of the content of files: a picture that has it was made of them."""
  content = hashlib.sha256()
  for path in paths:
    content.update(path.read_bytes())
  return content.hexdigest()


def current(picture: Path, paths: list[Path]) -> bool:
  """Returns whether a picture was made of these files as they are."""
  return picture.is_file() and digest(paths).encode() in picture.read_bytes()


def outdated() -> dict[Path, Callable[[], Any]]:
  """Returns the pictures that are not of the results as they are, and what makes their figures.

  A picture of which a results file is missing is left out.
  """
  return {
    path: make
    for path, (files, make) in _PICTURES.items()
    if all(file.is_file() for file in files) and not current(path, files)
  }


def draw() -> list[Path]:
  """Writes the pictures that are outdated, and returns their paths."""
  made = outdated()
  for path, make in made.items():
    make().savefig(path, dpi=110, metadata={"results": digest(_PICTURES[path][0])})
  return list(made)


def speed_figure() -> Any:
  """Returns the speeds on SmolLM2, of ours and of others, per prompt set."""
  return picture.figure(results.read(SPEED_FILES[0])["rows"], SPEED_SYSTEMS)


def trie_figure() -> Any:
  """Returns the warm-up curves of a trie, beside the retrieval `hier` of other stores."""
  sets = {}
  for path in TRIE_FILES:
    for name, curves in results.read(path)["rows"].items():
      shown = {label: curve for label, curve in curves.items() if _is_shown(label)}
      sets.setdefault(name, {}).update(shown)
  return trie_warmup.figure(sets)


def _is_shown(label: str) -> bool:
  """More than two stores, or all retrievals of each, would be too many lines for a panel."""
  retrieval, _, store = label.partition(", ")
  return not store or (retrieval == "hier" and not store.endswith("texts"))


_PICTURES = {TRIE: (TRIE_FILES, trie_figure), SPEED: (SPEED_FILES, speed_figure)}
