"""The text around blanks comes back unchanged, whatever the tokenizer puts before a text."""

import json

import jax
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from mtjax.anysubset.blanks import blanks_in
from mtjax.anysubset.infill import infill, stream_infill
from mtjax.data.pieces import decode_continuation, encode_pieces
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer, pieces_of
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

SPACE = "\u2581"
MERGES = [(SPACE, "a"), ("a", "b"), (SPACE + "a", "b"), ("b", "c"), (SPACE, SPACE), ("c", "c")]
KINDS = ["prepend", "always", "first", "never", "words"]


def made(kind, folder):
  """Returns a tokenizer with a space before a text: Llama 2's (prepend), others, XLNet's."""
  words = {"<unk>": 0, "</s>": 1, **{f"<0x{i:02X}>": 2 + i for i in range(256)}}
  for piece in (SPACE, *"abc", *("".join(pair) for pair in MERGES)):
    words.setdefault(piece, len(words))
  bpe = models.BPE(vocab=words, merges=MERGES, byte_fallback=True, unk_token="<unk>")
  tokenizer = tokenizers.Tokenizer(bpe)
  fallback = [decoders.ByteFallback(), decoders.Fuse()]
  if kind == "prepend":
    replace = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace])
    back = [decoders.Replace(SPACE, " "), *fallback, decoders.Strip(" ", 1, 0)]
  elif kind == "words":
    each = pre_tokenizers.Metaspace(prepend_scheme="always")
    splits = [pre_tokenizers.WhitespaceSplit(), each]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    back = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
  else:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    back = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=kind, split=False)]
  tokenizer.decoder = decoders.Sequence(back)
  tokenizer.add_special_tokens(["<unk>", "</s>"])
  tokenizer.save(str(folder / "tokenizer.json"))
  (folder / "tokenizer_config.json").write_text(json.dumps(dict(eos_token="</s>")))
  return BpeTokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def by_kind(tmp_path_factory):
  return {kind: made(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


TEXTS = st.text("abc \n0.", max_size=6)
# Metaspace takes the space that a text begins with for its own, and decodes it to nothing.
BEGINNINGS = TEXTS.map(lambda text: text.lstrip(" "))
WORDS = st.from_regex(r"[abc0.]+( [abc0.]+)*", fullmatch=True)


def filled(tokenizer, pieces):
  """Returns the text of pieces with "0" in every blank between them."""
  _, zero = encode_pieces(tokenizer, ["", "0"])
  first, *rest = pieces
  return tokenizer.decode(sum(([*zero, *piece] for piece in rest), first))


def cut(tokenizer, ids, first):
  """Returns where `ids` are cut after the first piece, or None if a token spans the cut."""
  spelled, goal = b"", b"".join(pieces_of(tokenizer, encode_pieces(tokenizer, [first])[0]))
  for place, piece in enumerate([b"", *pieces_of(tokenizer, ids)]):
    spelled += piece
    if spelled == goal:
      return place
  return None


@pytest.mark.parametrize("kind", ["prepend", "always", "first", "never"])
def test_pieces_are_the_text_and_have_the_tokens_of_the_whole_text(by_kind, kind):
  tokenizer = by_kind[kind]

  @given(st.tuples(BEGINNINGS, TEXTS, TEXTS))
  def check(texts):
    pieces = encode_pieces(tokenizer, texts)
    assert filled(tokenizer, pieces) == "0".join(texts)
    assert [decode_continuation(tokenizer, ids) for ids in pieces[1:]] == [*texts[1:]]
    (whole,) = tokenizer.encode_documents(["".join(texts[:2])])
    place = cut(tokenizer, whole, texts[0])
    if texts[0] and place is not None:
      assert pieces[:2] == [whole[:place], whole[place:]]

  check()


def test_words_that_each_get_a_space_get_none_after_a_blank(by_kind):
  """XLNet's tokenizer works so; it keeps no other whitespace than single spaces."""
  tokenizer = by_kind["words"]

  @given(st.tuples(WORDS, WORDS, WORDS))
  def check(texts):
    pieces = encode_pieces(tokenizer, texts)
    assert filled(tokenizer, pieces) == "0".join(texts)
    assert [decode_continuation(tokenizer, ids) for ids in pieces[1:]] == [*texts[1:]]

  check()


def test_other_tokenizers_encode_each_piece_as_it_is(tmp_path):
  bytes_, bundled = ByteTokenizer(), BpeTokenizer.bundled()
  texts = ["the un", "able dog", "", "\n y"]
  for tokenizer in (bytes_, bundled):
    alone = [list(ids) for ids in tokenizer.encode_documents(texts)]
    assert encode_pieces(tokenizer, texts) == alone
    assert [decode_continuation(tokenizer, ids) for ids in alone] == texts


def test_a_piece_that_is_never_cut_off_is_refused(by_kind, monkeypatch):
  monkeypatch.setattr("mtjax.data.pieces._BEFORE", ("a",))
  with pytest.raises(ValueError, match="the tokenizer makes no cut before 'bc'"):
    encode_pieces(by_kind["prepend"], ["a", "bc"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["ab___ab ca", "___b", "(___)", "a ___ b", "a___, b___c", "___"])
def test_the_text_around_blanks_is_unchanged(by_kind, kind, text):
  tokenizer = by_kind[kind]
  (blanked,) = blanks_in(text, tokenizer, 1)
  # The space before a blank is the blank's.
  expected = text.replace(" ___", "___").replace("___", "0")
  assert filled(tokenizer, list(map(list, blanked.pieces))) == expected


@pytest.mark.parametrize("kind", ["prepend", "words"])
def test_given_text_is_unchanged_in_every_round_of_a_filling(by_kind, kind):
  tokenizer = by_kind[kind]
  config = TransformerConfig(
    tokenizer.vocab_size,
    16,
    2,
    1,
    8,
    16,
    uniform_layers(1),
    max_position=64,
    predicts="any_subset",
    extra_embeddings=2,
    extra_names=("query", "sink"),
  )
  model = Model(config)
  text = TextModel(model, model.init(jax.random.key(0)), tokenizer)
  settings = dict(lengths=[2, 3], sampling=Sampling(temperature=1.0), key=1)
  rounds = list(stream_infill(text, "ab___bc a___ c", **settings))
  whole = infill(text, "ab___bc a___ c", **settings)
  assert rounds[-1].text == whole.text
  for one_round in rounds:
    one, two = one_round.blanks
    assert one_round.text == f"ab{one}bc a{two} c"
