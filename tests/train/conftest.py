"""What training tests share: stored rows and the smallest config."""

import numpy as np
import pytest

from configs.train.tiny import tiny


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
  """A file of 1600 tokens in documents of 1 to 39."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, 40, 200)
  document = np.repeat(np.arange(len(lengths)), lengths)[:1600]
  path = tmp_path_factory.mktemp("data") / "rows.npz"
  np.savez(path, flat=rng.integers(0, 64, 1600).astype(np.int32), seg=document.astype(np.int32))
  return path


@pytest.fixture
def config(rows):
  out = tiny()
  out.data.rows = str(rows)
  out.update(steps=6, warmup=1, decay=2, save_every=2)
  return out
