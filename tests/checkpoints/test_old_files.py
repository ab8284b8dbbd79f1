"""Files that version 0.1.0 wrote, before modules had the names that they have: they still load.

tests/fixtures/version_0_1 was made by commit 4eb6014: a run of configs/train/tiny.py that was
stopped after 10 steps, the same model exported after 12, and a trie's store.
"""

import json
import tarfile
from pathlib import Path

import pytest

from configs.train import tiny
from mtjax.draft import TrieStore
from mtjax.pretrained import load_pretrained
from mtjax.train import train

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "version_0_1"

# Losses and tokens as that version printed them, with steps=20 in one run.
LOSSES = {
  11: 5.138331890106201,
  12: 4.9744696617126465,
  15: 4.740213394165039,
  20: 4.464181900024414,
}
TOKENS = [32, 32, 32, 32, 32, 115, 32, 115, 32, 115, 101, 115, 115, 101, 115, 115]


def test_a_run_continues_where_it_stopped(tmp_path):
  with tarfile.open(OLD / "run.tar.gz") as archive:
    archive.extractall(tmp_path, filter="data")
  config = tiny.get_config()
  config.update(steps=20, decay=2)
  config.data.cache_dir = str(tmp_path / "cache")
  train(config, tmp_path / "run")
  lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
  losses = {row["step"]: row["loss"] for row in map(json.loads, lines) if "loss" in row}
  assert {step: losses[step] for step in LOSSES} == pytest.approx(LOSSES, rel=1e-4)


def test_an_exported_folder_writes_the_same_text():
  model = load_pretrained(str(OLD / "exported"))
  completions, _ = model.generate(["ROMEO:"], max_tokens=len(TOKENS))
  assert completions[0].tokens == TOKENS


def test_a_trie_store_still_loads():
  store = TrieStore(258, "a tokenizer")
  store.load(str(OLD / "trie.npz"))
  learned = TrieStore(258, "a tokenizer")
  learned.warm([[1, 2, 3, 4, 1, 2, 3, 5]] * 4)
  assert store.counts.size == learned.counts.size == 30
