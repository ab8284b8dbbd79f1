"""The benchmark of a process's first tokens measures processes that really start."""

import jax
import pytest

from mtjax import checkpoints
from mtjax.bench.systems import start
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  tokenizer = BpeTokenizer.bundled()
  config = TransformerConfig(
    vocab_size=tokenizer.vocab_size, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=24,
    layers=uniform_layers(2),
  )  # fmt: skip
  model, path = Model(config), tmp_path_factory.mktemp("model")
  checkpoints.save(path, model, model.init(jax.random.key(0)), tokenizer=tokenizer)
  return str(path)


def test_stages_follow_each_other_and_runs_write_the_same(folder, monkeypatch):
  monkeypatch.setenv("MTJAX_NATIVE", "off")  # the compiler would run in every round
  cases = ["mtjax, first run", "mtjax, later runs"]
  said: list[str] = []
  starts = list(
    start.measure(folder, [5, 6, 7], cases=cases, tokens=4, rounds=1, progress=said.append)
  )
  assert [one.case for one in starts] == cases
  assert said == [f"round 1 of 1: {case}" for case in cases]
  for one in starts:
    assert 0 < one.imported < one.loaded < one.first <= one.last
  assert len({one.tokens for one in starts}) == 1 and len(starts[0].tokens) == 4
  assert start.medians(starts)[cases[0]]["first"] == starts[0].first


def test_a_process_that_fails_is_named(tmp_path):
  with pytest.raises(RuntimeError, match=r"mtjax, first run ended with code 1: .*config\.json"):
    next(start.measure(str(tmp_path), [1], cases=["mtjax, first run"], tokens=2, rounds=1))
