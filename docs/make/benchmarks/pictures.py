"""Pictures of results, each with the digest of the files that it shows in its metadata."""

import hashlib
from pathlib import Path

from docs.make.benchmarks.sections import RESULTS, ROOT
from mtjax.report import results, trie_warmup

TRIE = ROOT / "docs" / "pictures" / "trie_warmup.png"
TRIE_FILES = [RESULTS / f"trie_{name}.json" for name in ("gsm8k", "e2e", "rag", "capacities")]


def digest(paths: list[Path]) -> str:
  """Returns a digest of the content of files: a picture that has it was made of them."""
  content = hashlib.sha256()
  for path in paths:
    content.update(path.read_bytes())
  return content.hexdigest()


def current(picture: Path, paths: list[Path]) -> bool:
  """Returns whether a picture was made of these files as they are."""
  return picture.is_file() and digest(paths).encode() in picture.read_bytes()


def draw() -> None:
  """Writes the picture of warm-up curves, beside the retrieval `hier` of other stores."""
  sets = {}
  for path in TRIE_FILES:
    for name, curves in results.read(path)["rows"].items():
      shown = {label: curve for label, curve in curves.items() if _is_shown(label)}
      sets.setdefault(name, {}).update(shown)
  figure = trie_warmup.figure(sets)
  figure.savefig(TRIE, dpi=110, metadata={"results": digest(TRIE_FILES)})


def _is_shown(label: str) -> bool:
  """More than two stores, or all retrievals of each, would be too many lines for a panel."""
  retrieval, _, store = label.partition(", ")
  return not store or (retrieval == "hier" and not store.endswith("texts"))
