"""Fixtures of the training tests: small texts and the smallest config."""

import numpy as np
import pytest

from configs.train.tiny import tiny


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
  """Returns a folder with two small texts of a few letters, for their tokens too."""
  folder = tmp_path_factory.mktemp("data")
  rng = np.random.default_rng(0)
  for name in ("one", "two"):
    lines = ("".join(rng.choice(list("abcd "), rng.integers(1, 40))) for _ in range(40))
    (folder / f"{name}.txt").write_text("\n".join(lines))
  return folder


@pytest.fixture(scope="session")
def sources(texts):
  return (f"file:{texts}/one.txt#per=line;weight=2", f"file:{texts}/two.txt")


@pytest.fixture
def config(texts, sources):
  out = tiny()
  out.data.update(sources=sources, cache_dir=str(texts / "tokens"))
  out.update(steps=6, warmup=1, decay=2, save_every=2)
  return out
