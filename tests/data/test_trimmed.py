"""Trimmed vocabularies and stored tokens: from a source to rows of a small model's ids."""

import dataclasses
import json

import numpy as np
import pytest

from mtjax import checkpoints, data
from mtjax.data.sources import Source, documents
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer
from mtjax.data.trimmed import TrimmedTokenizer, read_map
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.pretrained import load_pretrained, tokenizer_of

END = 256
IDS = [ord("b"), ord("a"), END, ord("n")]


@pytest.fixture
def tokenizer():
  return TrimmedTokenizer(ByteTokenizer(), IDS, "bytes")


def test_ids_are_places_in_the_map_and_the_last_is_for_all_others(tokenizer):
  assert tokenizer.vocab_size == 5
  assert tokenizer.encode("banana!") == [0, 1, 3, 1, 3, 1, 4]
  assert tokenizer.encode_documents(["an", "x"]) == [[1, 3], [4]]
  assert tokenizer.decode([0, 1, 3, 4, 1]) == "bana"
  assert tokenizer.token_bytes() == [b"b", b"a", b"", b"n", b""]
  assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.pad_id == 2
  assert tokenizer.eos_ids == (2,)


def test_special_tokens_of_the_map_are_special():
  whole = BpeTokenizer.bundled()
  spelled = dict(whole.special_tokens())
  ids = [5, whole.eos_id, 9]
  ours = TrimmedTokenizer(whole, ids, "bundled").special_tokens()
  assert ours == {text: ids.index(i) for text, i in spelled.items() if i in ids}
  assert 1 in ours.values()


def test_maps_of_other_tokens_have_another_fingerprint(tokenizer):
  other = TrimmedTokenizer(ByteTokenizer(), IDS[::-1], "bytes")
  assert len({one.fingerprint() for one in (tokenizer, other, ByteTokenizer())}) == 3


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    ([], "needs at least 1 token"),
    ([*IDS, 258], "must be whole numbers below 258: .258."),
    ([*IDS, -1], "must be whole numbers below 258: .-1."),
    ([*IDS, True], "must be whole numbers below 258: .True."),
    ([*IDS, IDS[0]], "must differ: .98."),
    (IDS[:2], "needs the tokens that begin and end texts: .256."),
  ],
)
def test_ids_that_do_not_fit_the_tokenizer_are_refused(ids, message):
  with pytest.raises(ValueError, match=message):
    TrimmedTokenizer(ByteTokenizer(), ids, "bytes")


def test_a_model_is_saved_with_its_map_and_recognised_by_it(tmp_path, tokenizer):
  config = TransformerConfig(
    vocab_size=5, dim=8, heads=1, kv_heads=1, head_dim=8, mlp_dim=8, layers=uniform_layers(1)
  )
  model = Model(config)
  params = model.init(np.array([0, 1], np.uint32))
  checkpoints.save(tmp_path, model, params, tokenizer=tokenizer)
  assert read_map(tmp_path) == ("bytes", tuple(IDS))
  text = load_pretrained(str(tmp_path))
  assert isinstance(text.tokenizer, TrimmedTokenizer)
  assert text.tokenizer.fingerprint() == tokenizer.fingerprint()
  assert len(text.generate(["ban"], max_tokens=3)[1].tokens[0]) <= 3
  # A model with another tokenizer in the same folder is not read with the map of this one.
  bigger = Model(dataclasses.replace(config, vocab_size=258))
  params = bigger.init(np.array([0, 1], np.uint32))
  checkpoints.save(tmp_path, bigger, params, tokenizer=ByteTokenizer())
  assert read_map(tmp_path) is None


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ('{"tokenizer": "bytes"}', 'must hold {"tokenizer": a model'),
    ('{"tokenizer": "bytes", "ids": [98, 98, 256]}', "vocabulary.json: .* must differ: .98."),
    ('{"tokenizer": "bytes", "ids": [98, "a", 256]}', "must be whole numbers: .'a'."),
    ('{"tokenizer": "bytes", "ids": [98, 256, 300]}', "vocabulary.json: .* below 258: .300."),
    ("[]", "vocabulary.json must hold a JSON object"),
  ],
)
def test_a_broken_map_is_named(tmp_path, content, message):
  (tmp_path / "vocabulary.json").write_text(content)
  with pytest.raises(ValueError, match=message):
    tokenizer_of(str(tmp_path))


def stored(tmp_path, records):
  file = tmp_path / "written.jsonl"
  file.write_text("".join(json.dumps(record) + "\n" for record in records))
  return f"file:{file}#ids_key=ids"


@pytest.mark.parametrize("trimmed", [False, True])
def test_stored_tokens_become_rows_as_they_are(tmp_path, tokenizer, trimmed):
  """The begin token is put before each document anyway, and an answer that was cut has no end."""
  source = stored(
    tmp_path, [dict(ids=[END, 98, 97, 33, END]), dict(ids=[97, 110]), dict(ids=[END])]
  )
  used = tokenizer if trimmed else ByteTokenizer()
  rows = data.eval_rows(source, used, length=8, cache_dir=str(tmp_path / "cache")).rows
  whole = {0: 98, 1: 97, 2: END, 3: 110, 4: 33} if trimmed else {}
  as_stored = [[whole.get(i, i) for i in rows[0][name]] for name in ("tokens", "targets")]
  assert as_stored[0][:6] == [END, 98, 97, 33, END, 97]
  assert as_stored[1][:6] == [98, 97, 33, END, 97, 110]
  assert rows[0]["segment"].tolist() == [1, 1, 1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(
  ("record", "message"),
  [
    (dict(ids=[1, 300]), "written.jsonl, line 2: 300 is no token of a tokenizer with 258 tokens"),
    (dict(ids="ab"), "line 2: 'ids' must hold a list of token ids"),
    (dict(tokens=[1]), "line 2: 'ids' must hold a list of token ids"),
    (dict(ids=[1.5]), "line 2: 'ids' must hold a list of token ids"),
  ],
)
def test_what_are_no_stored_tokens_is_named(tmp_path, tokenizer, record, message):
  source = stored(tmp_path, [dict(ids=[1]), record])
  with pytest.raises(ValueError, match=message):
    data.eval_rows(source, tokenizer, length=8, cache_dir=str(tmp_path / "cache"))


def test_stored_tokens_are_no_texts(tmp_path):
  with pytest.raises(ValueError, match="holds token ids"):
    list(documents(Source.parse(stored(tmp_path, [dict(ids=[1])]))))
  with pytest.raises(ValueError, match="has both text_key and ids_key"):
    Source.parse("file:a.jsonl#ids_key=ids;text_key=b")
