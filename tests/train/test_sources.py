"""The texts that a run reads, and those that it is scored on."""

import json

import jax
import numpy as np
import pytest

from mtjax import train
from mtjax.train import config as config_lib
from mtjax.train.sources import evaluation_texts, make_batches, make_evaluation


@pytest.fixture
def scored(texts, config):
  config.data.eval_sources = (f"a=file:{texts}/one.txt", f"b=file:{texts}/two.txt#per=line")
  return config


def test_texts_are_scored_at_intervals_and_at_the_end(tmp_path, scored):
  scored.update(steps=5, eval_every=2)
  train.run(scored, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
  assert [line["step"] for line in lines if "bits_per_byte/a" in line] == [2, 4, 5]
  # 258 tokens of one byte each, which are all about equally probable at first.
  assert all(4 < line["bits_per_byte/b"] < 8.1 for line in lines if "bits_per_byte/b" in line)


def test_only_the_first_bytes_are_scored(scored, monkeypatch):
  seen = []

  def score(model, params, documents, **_):
    seen.append([(bytes(map(int, tokens)), size) for tokens, size in documents])
    return type("Score", (), dict(bits_per_byte=1.0))

  monkeypatch.setattr("mtjax.evaluate.perplexity.score", score)
  scored.data.eval_bytes = 100
  settings = config_lib.read(scored)
  make_evaluation(settings, evaluation_texts(settings))(None)
  whole, lines = seen
  assert len(whole) == 1 and whole[0][1] == len(whole[0][0]) == 100
  assert len(lines) > 1 and sum(size for _, size in lines) == 100
  assert all(size == len(text) for text, size in lines)


def test_restored_batches_continue_where_they_were(config):
  one, two = (make_batches(config_lib.read(config)) for _ in range(2))
  for _ in range(3):
    next(one)
  two.set_state(json.loads(json.dumps(one.get_state())))
  for _ in range(3):
    jax.tree.map(np.testing.assert_array_equal, next(one), next(two))


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("sources", (), "data.sources is empty"),
    ("sources", ("file:nowhere.txt",), "nowhere.txt"),
    ("tokenizer", "bundled", "'bundled' has 4096 tokens, but model.vocab_size is only 258"),
    ("eval_sources", ("nowhere.txt",), "is not name=source"),
    ("eval_sources", ("a=file:nowhere.txt",), "nowhere.txt"),
  ],
)
def test_a_source_that_cannot_be_read_is_named(config, field, value, message):
  config.data[field] = value
  settings = config_lib.read(config)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    make_batches(settings)
    evaluation_texts(settings)


def test_nothing_is_scored_without_eval_sources(config):
  settings = config_lib.read(config)
  assert make_evaluation(settings, evaluation_texts(settings)) is None


def test_a_uniform_model_needs_the_vocabulary_s_bits(scored):
  settings = config_lib.read(scored)
  params = settings.model.init(jax.random.key(0))
  flat = jax.tree.map(lambda p: 0 * p, params)
  scores = make_evaluation(settings, evaluation_texts(settings))(flat)
  np.testing.assert_allclose(list(scores.values()), np.log2(258), rtol=1e-5)
