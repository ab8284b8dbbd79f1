"""Tokenizers: round trips, bytes of ids, streaming, special tokens, missing files."""

import json
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest

from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer, load_tokenizer
from mtjax.rounds.stop_strings import StopStrings

BUNDLED = BpeTokenizer.bundled()
BOTH = [ByteTokenizer(), BUNDLED]
TEXTS = [
  "",
  "The old clock struck nine.",
  'def f(x):\n    if x:\n        return "é"  # 漢字\n\n\n',
  "\t\r\n mixed \u2028 spaces  \u00a0",
  "👩\u200d👧 e\u0301",
  "Natalia sold 48/2 = <<48/2=24>>24 clips.",
]


@pytest.mark.parametrize("tokenizer", BOTH, ids=["bytes", "bundled"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back(tokenizer, text):
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert all(0 <= token < tokenizer.vocab_size for token in ids)
  assert [list(x) for x in tokenizer.encode_documents([text, text])] == [ids, ids]


@hypothesis.given(st.text())
def test_any_text_comes_back_and_streams_in_whole_characters(text):
  for tokenizer in BOTH:
    ids = tokenizer.encode_documents([text])[0]
    assert tokenizer.decode(ids) == text
    stream = TextStream(tokenizer)
    pieces = [stream.feed([token]) for token in ids]
    assert "".join([*pieces, stream.finish()]) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@hypothesis.given(st.lists(st.integers(2, 257), max_size=12))
def test_a_stream_of_any_bytes_equals_decode(ids):
  for tokenizer in BOTH:
    stream = TextStream(tokenizer)
    pieces = [stream.feed([token]) for token in ids]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(ids)


def test_a_cut_character_waits_and_then_is_marked():
  stream = TextStream(ByteTokenizer())
  assert [stream.feed([byte]) for byte in "漢".encode()] == ["", "", "漢"]
  assert stream.feed(list("漢".encode())[:2]) == ""
  assert stream.finish() == "\ufffd"


@pytest.mark.parametrize("tokenizer", BOTH, ids=["bytes", "bundled"])
def test_the_bytes_of_tokens_are_the_bytes_of_the_text(tokenizer):
  pieces = tokenizer.token_bytes()
  assert len(pieces) == tokenizer.vocab_size
  for text in TEXTS:
    assert b"".join(pieces[token] for token in tokenizer.encode(text)) == text.encode()
  assert pieces[tokenizer.eos_id] == pieces[tokenizer.pad_id] == b""


def test_a_stop_string_is_found_in_the_bundled_tokens():
  automaton = StopStrings.compile(["\n\n"], BUNDLED.token_bytes())
  state = 0
  for token in BUNDLED.encode("a line\n\n"):
    assert state >= 0
    state = int(automaton.step[state, token])
  assert state == -1


def test_the_bundled_vocabulary_is_as_documented():
  assert (BUNDLED.vocab_size, BUNDLED.eos_id, BUNDLED.bos_id, BUNDLED.pad_id) == (4096, 0, 0, 1)
  pieces = BUNDLED.token_bytes()
  assert all(not any(48 <= b < 58 for b in p) or len(p.strip()) == 1 for p in pieces), "digits"
  (indented,) = BUNDLED.encode("\n        ")
  assert pieces[indented] == b"\n        "


@pytest.mark.parametrize("vocab", BOTH, ids=["bytes", "bundled"])
def test_special_tokens_are_not_shown(vocab):
  assert vocab.decode([*vocab.encode("a"), vocab.eos_id, vocab.pad_id]) == "a"


def test_a_document_cannot_hold_a_special_token_but_a_prompt_can():
  text = "a<|endoftext|>b"
  assert BUNDLED.eos_id in BUNDLED.encode(text)
  (ids,) = BUNDLED.encode_documents([text])
  assert BUNDLED.eos_id not in ids and BUNDLED.decode(ids) == text


@pytest.fixture
def imported(tmp_path):
  """Returns a folder like an imported model's: SentencePiece-like, prompts with a begin token."""
  from tokenizers import Tokenizer, decoders, models, normalizers, processors

  pieces = ["<s>", "</s>", "<pad>", "<|eot|>", *(f"<0x{byte:02X}>" for byte in range(256))]
  pieces += ["\u2581", "a", "b"]
  vocab = {piece: index for index, piece in enumerate(pieces)}
  out = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
  out.normalizer = normalizers.Replace(" ", "\u2581")
  out.decoder = decoders.Sequence(
    [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  out.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
  out.add_special_tokens(["<s>", "</s>", "<pad>", "<|eot|>"])
  out.enable_padding(length=20)
  out.save(str(tmp_path / "tokenizer.json"))
  names = dict(bos_token="<s>", eos_token=dict(content="</s>"), pad_token="<pad>")
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
  (tmp_path / "config.json").write_text(json.dumps(dict(eos_token_id=[1, 3])))
  return tmp_path


def test_an_imported_folder_declares_its_special_tokens(imported):
  tokenizer = load_tokenizer(imported)
  assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (0, (1, 3), 2)
  assert tokenizer.encode("a b") == [0, 261, 260, 262], "with a begin token, and not padded"
  assert tokenizer.encode_documents(["a b"]) == [[261, 260, 262]]
  assert tokenizer.decode(tokenizer.encode("a é")) == "a é"


def test_sentencepiece_tokens_stand_for_spaces_and_bytes(imported):
  tokenizer = load_tokenizer(imported)
  pieces = tokenizer.token_bytes()
  assert pieces[:4] == [b""] * 4 and pieces[4] == b"\0"
  ids = tokenizer.encode_documents(["a é"])[0]
  assert b"".join(pieces[token] for token in ids) == "a é".encode()


def test_without_files_beside_it_usual_names_are_known(imported):
  alone = imported / "alone"
  alone.mkdir()
  shutil.copy(imported / "tokenizer.json", alone)
  tokenizer = load_tokenizer(alone / "tokenizer.json")
  assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (1, (1,), 1)


def test_no_end_token_is_an_error(tmp_path):
  from tokenizers import Tokenizer, models

  Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
  with pytest.raises(ValueError, match="no end token is known"):
    load_tokenizer(tmp_path)


def test_names_load():
  assert load_tokenizer("bytes").vocab_size == 258
  assert load_tokenizer("bundled").fingerprint() == BUNDLED.fingerprint()


def test_files_that_are_missing_or_wrong_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="holds no tokenizer.json"):
    load_tokenizer(tmp_path)
  with pytest.raises(FileNotFoundError, match="there is no tokenizer 'nonsense'"):
    load_tokenizer("nonsense")
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(ValueError, match="is no file of the tokenizers library"):
    load_tokenizer(tmp_path)


def test_an_id_that_cannot_be_fetched_is_named(monkeypatch):
  hub = pytest.importorskip("huggingface_hub", reason="pip install mtjax[hf]")

  def offline(*args, **kwargs):
    raise ConnectionError("no network")

  monkeypatch.setattr(hub, "snapshot_download", offline)
  with pytest.raises(FileNotFoundError, match="'some/model' .*ConnectionError: no network"):
    load_tokenizer("some/model")
