"""Training batches: deterministic, resumable, mixed by weight, divided among processes."""

import json

import numpy as np
import pytest

from mtjax import data
from mtjax.data.tokenizers import ByteTokenizer

SETTINGS = dict(batch=4, length=8, seed=3)


@pytest.fixture
def sources(tmp_path):
  """Returns two sources: 40 documents of "a", and 30 of "b" with three times the weight."""
  for letter, count in (("a", 40), ("b", 30)):
    lines = [letter * (1 + number % 7) for number in range(count)]
    (tmp_path / f"{letter}.txt").write_text("\n".join(lines))
  return [f"file:{tmp_path}/a.txt#per=line", f"file:{tmp_path}/b.txt#per=line;weight=3"]


@pytest.fixture
def make(tmp_path, sources):
  def build(chosen=None, tokenizer=None, **settings):
    tokenizer = tokenizer or ByteTokenizer()
    cache = str(tmp_path / "cache")
    return data.TrainBatches(
      chosen or sources, tokenizer, cache_dir=cache, **{**SETTINGS, **settings}
    )

  return build


def take(batches, count):
  return [next(batches) for _ in range(count)]


def assert_same(one, two):
  for a, b in zip(one, two, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_shapes_and_types(make):
  batch = next(make())
  assert {name: (array.shape, str(array.dtype)) for name, array in batch.items()} == dict(
    tokens=((4, 8), "int32"),
    targets=((4, 8), "int32"),
    segment=((4, 8), "int32"),
    position=((4, 8), "int32"),
    weight=((4, 8), "float32"),
  )


def test_the_same_seed_gives_the_same_batches(make):
  one, other = take(make(), 30), take(make(seed=4), 30)
  assert_same(one, take(make(), 30))
  assert any(not np.array_equal(a["tokens"], b["tokens"]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("done", [0, 1, 7, 40])
def test_a_resumed_reader_continues_like_an_undisturbed_one(make, done):
  undisturbed = make()
  take(undisturbed, done)
  state = json.loads(json.dumps(undisturbed.get_state()))
  rest = take(undisturbed, 20)
  fresh, used = make(), make()
  fresh.set_state(state)
  assert_same(take(fresh, 20), rest)
  take(used, 5)
  used.set_state(state)
  assert_same(take(used, 20), rest)
  assert used.get_state() == undisturbed.get_state()


@pytest.mark.parametrize("change", [dict(length=9), dict(batch=8), dict(seed=0)])
def test_a_state_of_other_data_is_refused(make, change):
  with pytest.raises(ValueError, match="of other texts, weights"):
    make(**change).set_state(make().get_state())


def test_rows_are_mixed_by_weight(make):
  letters = []
  for batch in take(make(), 100):
    for row in batch["targets"]:
      letters.append("a" if ord("a") in row else "b")
      assert not {ord("a"), ord("b")} <= set(row.tolist()), "a row is of one source"
  assert abs(letters.count("b") - 300) <= 2
  # Evenly, not one source after the other.
  assert abs(letters[:40].count("b") - 30) <= 2


def test_one_epoch_of_batches_holds_every_token_once(make, sources):
  batches = make(sources[:1], batch=1)
  rows = take(batches, batches.rows_per_epoch[0])
  targets = np.concatenate([row["targets"][row["weight"] == 1] for row in rows])
  assert (targets == ord("a")).sum() == sum(1 + number % 7 for number in range(40))
  assert (targets == ByteTokenizer.eos_id).sum() == 40


def test_processes_share_the_rows_and_the_state(make):
  whole = make()
  parts = [make(rows=rows) for rows in ((0, 1), (2, 3))]
  for _ in range(6):
    expected, shares = next(whole), [next(part) for part in parts]
    for name, array in expected.items():
      np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), array)
  assert whole.get_state() == parts[0].get_state() == parts[1].get_state()


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(batch=0), "must be at least 1, got 0 and 8"),
    (dict(length=0), "must be at least 1, got 4 and 0"),
    (dict(rows=(3, 4)), "rows of a batch are from 0 to 3, got 4"),
    (dict(rows=()), "has nothing to feed"),
  ],
)
def test_bad_settings_are_refused(make, settings, message):
  with pytest.raises(ValueError, match=message):
    make(**settings)


def test_no_source_is_refused():
  with pytest.raises(ValueError, match="there is no source"):
    data.TrainBatches([], ByteTokenizer(), **SETTINGS)


class CountingTokenizer(ByteTokenizer):
  calls = 0

  def encode_documents(self, texts):
    self.calls += 1
    return super().encode_documents(texts)


def test_text_is_tokenised_once(make, sources):
  tokenizer = CountingTokenizer()
  one = take(make(tokenizer=tokenizer), 5)
  assert tokenizer.calls == 2
  assert_same(take(make(tokenizer=tokenizer), 5), one)
  assert tokenizer.calls == 2


def test_half_written_tokens_are_not_read(make, sources, tmp_path):
  class Dies(ByteTokenizer):
    def encode_documents(self, texts):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    make(tokenizer=Dies())
  assert not list((tmp_path / "cache").iterdir())
  next(make())


def test_a_changed_file_is_tokenised_again(make, tmp_path):
  path = tmp_path / "a.txt"
  one = make([f"file:{path}"])
  path.write_text("c" * 100)
  two = make([f"file:{path}"])
  assert ord("c") in next(two)["targets"]
  with pytest.raises(ValueError, match="of other texts"):
    two.set_state(one.get_state())


def test_a_source_without_text_is_refused(make, tmp_path):
  (tmp_path / "empty.txt").write_text("")
  with pytest.raises(ValueError, match="there is no text in"):
    make([f"file:{tmp_path}/empty.txt"])


def test_evaluation_scores_every_token_once_and_counts_bytes(tmp_path):
  (tmp_path / "a.txt").write_text("é1234567\nxyz\n")
  rows = data.eval_rows(
    f"file:{tmp_path}/a.txt#per=line", ByteTokenizer(), length=5, cache_dir=str(tmp_path / "c")
  )
  assert (rows.tokens, rows.bytes, len(rows.rows)) == (12, 12, 3)
  batches = list(rows.batches(2))
  assert [batch["tokens"].shape for batch in batches] == [(2, 5), (2, 5)]
  scored = np.concatenate([batch["targets"][batch["weight"] == 1] for batch in batches])
  assert bytes(scored.tolist()).decode() == "é1234567xyz"


def test_evaluation_documents_are_those_that_perplexity_scores(tmp_path):
  (tmp_path / "a.txt").write_text("é\nxyz\n")
  documents = data.eval_documents(
    f"file:{tmp_path}/a.txt#per=line", ByteTokenizer(), cache_dir=str(tmp_path / "c")
  )
  assert [(ids.tolist(), size) for ids, size in documents] == [
    (list("é".encode()), 2),
    (list(b"xyz"), 3),
  ]
