"""Stored rows as a source: what a row is, what the state is, what is refused; scoring texts."""

import gzip
import json

import jax
import numpy as np
import pytest

from mtjax import train
from mtjax.train import config as config_lib
from mtjax.train.rows import StoredRows, store_rows
from mtjax.train.sources import make_evaluation


def source(path, **fields):
  return StoredRows(path, **{**dict(batch=2, length=4, seed=0, vocab_size=100), **fields})


@pytest.fixture
def path(tmp_path):
  out = str(tmp_path / "rows.npz")
  store_rows(out, [range(10, 15), range(20, 33), range(40, 46)], end=1)
  return out


def test_a_target_is_the_next_token_of_the_same_document(path):
  batch = next(source(path, batch=6))
  flat = [*range(10, 15), 1, *range(20, 33), 1, *range(40, 46), 1]
  order = np.argsort([flat.index(row[0]) if row[0] != 1 else 99 for row in batch["tokens"]])
  np.testing.assert_array_equal(batch["tokens"][order[0]], [10, 11, 12, 13])
  np.testing.assert_array_equal(batch["tokens"][order[1]], [14, 1, 20, 21])
  np.testing.assert_array_equal(batch["targets"][order[1]], [1, 20, 21, 22])
  np.testing.assert_array_equal(batch["weight"][order[1]], [1, 0, 1, 1])
  np.testing.assert_array_equal(batch["segment"][order[1]], [1, 1, 2, 2])


def test_every_epoch_shows_every_row_in_another_order(path):
  batches = source(path)
  epochs = [[next(batches)["tokens"] for _ in range(3)] for _ in range(2)]
  one, two = (np.concatenate(epoch) for epoch in epochs)
  assert {tuple(row) for row in one} == {tuple(row) for row in two} and len(one) == 6
  assert not np.array_equal(one, two)


def test_a_restored_source_goes_on_where_it_was(path):
  one, two = source(path), source(path)
  for _ in range(4):
    next(one)
  two.set_state(one.get_state())
  for _ in range(5):
    np.testing.assert_array_equal(next(one)["tokens"], next(two)["tokens"])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(batch=7), "has 6 rows of 4 tokens, a batch needs 7"),
    (dict(vocab_size=45), "token ids from 1 to 45, the model 45 tokens"),
  ],
)
def test_rows_that_do_not_fit_are_refused(path, fields, message):
  with pytest.raises(ValueError, match=message):
    source(path, **fields)


def test_a_missing_file_is_named():
  with pytest.raises(FileNotFoundError, match="nowhere.npz"):
    source("nowhere.npz")


@pytest.fixture
def texts(tmp_path, config):
  from tokenizers import Tokenizer, models, pre_tokenizers

  letters = {chr(97 + i): i for i in range(26)} | {"?": 26}
  tokenizer = Tokenizer(models.WordLevel(letters, unk_token="?"))
  tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
  tokenizer.save(str(tmp_path / "tokenizer.json"))
  with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
    file.write("abcdefgh" * 10)
  (tmp_path / "b.txt").write_text("zyx" * 5)
  config.data.tokenizer = str(tmp_path / "tokenizer.json")
  config.data.eval_texts = (f"a=file:{tmp_path}/a.txt.gz", f"b=file:{tmp_path}/b.txt")
  return config


def test_texts_are_scored_at_intervals_and_at_the_end(tmp_path, texts):
  texts.update(steps=5, eval_every=2)
  train.run(texts, tmp_path / "run")
  lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
  assert [line["step"] for line in lines if "bits_per_byte/a" in line] == [2, 4, 5]
  # 64 tokens of one byte each, all about as likely.
  assert all(5 < line["bits_per_byte/b"] < 7 for line in lines if "bits_per_byte/b" in line)


def test_only_the_first_bytes_are_scored(texts):
  texts.data.eval_bytes = 8
  texts.data.eval_texts = texts.data.eval_texts[:1]
  short = make_evaluation(config_lib.read(texts))
  texts.data.eval_bytes = 80
  settings = config_lib.read(texts)
  params = settings.model.init(jax.random.key(0))
  assert short(params) != make_evaluation(settings)(params)


def test_a_text_that_is_not_there_is_named(texts):
  texts.data.eval_texts = ("a=file:nowhere.txt",)
  with pytest.raises(FileNotFoundError, match="nowhere.txt"):
    make_evaluation(config_lib.read(texts))


def test_an_entry_without_a_name_is_refused(texts):
  texts.data.eval_texts = ("nowhere.txt",)
  with pytest.raises(ValueError, match="must be name=source"):
    make_evaluation(config_lib.read(texts))
