"""Text from one vocabulary to another and back: nothing invented, nothing lost, little repeated."""

import dataclasses

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtjax.data import bpe
from mtjax.data.sources.read import documents
from mtjax.data.sources.source import Source
from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import CrossVocabulary, ModelChain
from mtjax.draft.model.cross_vocabulary import check_model
from mtjax.draft.model.reencoding import Translator
from mtjax.registry.methods import DRAFTERS
from mtjax.text import TextModel
from tests.draft.drafters import (
  LETTERS,
  OTHER,
  PARAMS,
  PROMPTS,
  RENAMED,
  SMALL,
  SMALL_PARAMS,
  TARGET,
  make,
  renamed,
)

TEXT = next(documents(Source.parse("builtin:tinyshakespeare")))[:20_000]
BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A BPE of 340 tokens."""
  file = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
  bpe.train([TEXT], vocab_size=340).save(str(file))
  return BpeTokenizer(file)


@pytest.fixture(scope="module")
def pairs(trained):
  bundled = BpeTokenizer.bundled()
  return [
    Translator(target, draft, look_back=4)
    for target, draft in [
      (bundled, trained),
      (trained, bundled),
      (bundled, BYTES),
      (BYTES, trained),
    ]
  ]


# Words, signs, and characters of two to four bytes.
texts = st.text(st.sampled_from("ab etd\n  (.é→𝄞"), max_size=30)
pieces = st.lists(texts, min_size=1, max_size=5)


def spelled(spelling, ids):
  return b"".join(spelling.bytes_of(token) for token in ids)


@given(st.integers(0, 3), texts, pieces, st.data())
def test_the_draft_model_reads_the_text_and_keeps_what_it_had(pairs, pair, prompt, pieces, data):
  """Growing texts, with drafts that come true or do not."""
  translator = pairs[pair]
  ids, held = translator.target.tokenizer.encode(prompt), []
  for piece in pieces:
    ids = ids + translator.target.tokenizer.encode(piece)
    ids = ids[: data.draw(st.integers(max(len(ids) - 2, 0), len(ids)))]  # within a character, maybe
    now, agreed = translator.to_draft(ids, held)
    whole = TextStream(translator.target.tokenizer).feed(ids)  # characters, the last may be due
    assert spelled(translator.draft, now) == whole.encode()
    assert now[:agreed] == held[:agreed] and agreed < len(now)
    held = now + translator.draft.tokenizer.encode(data.draw(texts))


@given(st.integers(0, 3), texts, texts)
def test_drafts_begin_as_the_draft_model_says(pairs, pair, known, new):
  translator = pairs[pair]
  ids = translator.target.tokenizer.encode(known)
  out = translator.to_target(ids, translator.draft.tokenizer.encode(new))
  assert new.encode().startswith(spelled(translator.target, out))
  assert out or not new, "a token of the draft is left, if there was any"


def test_drafts_are_the_tokens_that_the_target_would_use(pairs):
  """Known text and draft encoded together, but for the last token, which may be unfinished."""
  word_ends = [i for i in range(1, 600) if TEXT[i] == " " and TEXT[i - 1].isalpha()]
  for translator in pairs[:3]:
    target, draft = translator.target.tokenizer, translator.draft.tokenizer
    together = target.encode(TEXT[:600])
    for known in range(20, 60):
      begin = len(target.decode(together[:known]))
      end = next(i for i in word_ends if i > begin + 20)
      out = translator.to_target(together[:known], draft.encode(TEXT[begin:end]))
      expected = target.encode(TEXT[:end])
      assert out == expected[known:-1]


def test_only_the_last_tokens_are_encoded_again(pairs):
  class Counting(ByteTokenizer):
    encoded = 0

    def encode_documents(self, texts):
      Counting.encoded += sum(map(len, texts))
      return super().encode_documents(texts)

  target = BpeTokenizer.bundled()
  translator = Translator(target, Counting(), look_back=4)
  ids = target.encode(TEXT[:2000])
  held, _ = translator.to_draft(ids[:-1], [])
  Counting.encoded = 0
  now, agreed = translator.to_draft(ids, held + [0, 1])  # two drafts that were wrong
  assert now == list(TEXT[:2000].encode()) and agreed == len(held)
  assert Counting.encoded <= 4 + len(now) - len(held)


def test_a_character_that_is_not_whole_yet_must_be_finished_by_the_draft(trained):
  translator = Translator(BYTES, trained)
  known = list("caf\u00e9".encode())[:-1]
  now, _ = translator.to_draft(known, [])
  assert trained.decode(now) == "caf"
  assert bytes(translator.to_target(known, trained.encode("\u00e9s are"))) == b"\xa9s ar"
  assert translator.to_target(known, trained.encode("e")) == []


def test_when_the_draft_model_ends_the_text_the_end_token_is_the_draft(trained):
  out = Translator(BYTES, trained).to_target(list(b"ab"), [*trained.encode("c"), trained.eos_id, 9])
  assert out == [*b"c", BYTES.eos_id]


def test_a_text_of_special_tokens_alone_is_begun_as_documents_are(trained):
  assert Translator(BYTES, trained).to_draft([256], []) == ([trained.bos_id], 0)


# In the loop: a model whose tokens have other names drafts as it does under its own.


def accepted(drafter, params):
  out = generate(
    TARGET, PARAMS, PROMPTS, max_tokens=25, method=Speculative(drafter), method_params=params
  )
  return out.counters["accepted_at_depth"][:3], out.counters["target_forwards"]


# Often right, so that caches go back by one, two, three tokens.
ALIKE = make(16, 0, 3.0)[1]


def test_other_names_for_tokens_change_no_draft():
  # The last of four drafts is dropped, as it might be a part of a longer token.
  other = accepted(CrossVocabulary(TARGET, 4, max_drafts=3), (renamed(ALIKE), RENAMED.handle))
  assert other == accepted(ModelChain(TARGET, 3), ALIKE)
  assert other[0][0] > other[0][1] > other[0][2] > 0


@dataclasses.dataclass(frozen=True)
class Forgetful(CrossVocabulary):
  """Does not go back in its cache: refused drafts stay in the draft model's text."""

  def _follow(self, params, state, active, chunk):
    after, *others = super()._follow(params, state, active, chunk)
    length = jax.numpy.maximum(after.cache.length, state.cache.length)
    return (after.replace(cache=after.cache.replace(length=length)), *others)


def test_a_cache_that_keeps_refused_drafts_is_seen():
  out = accepted(Forgetful(TARGET, 4, max_drafts=3), (renamed(ALIKE), RENAMED.handle))
  assert out != accepted(ModelChain(TARGET, 3), ALIKE)


def short(model):
  return dataclasses.replace(model, config=dataclasses.replace(model.config, max_position=64))


def test_rows_without_room_for_the_draft_models_tokens_decode_plainly():
  method = Speculative(CrossVocabulary(short(TARGET), 4))
  params = (renamed(PARAMS), RENAMED.handle)
  out = generate(TARGET, PARAMS, [[1, 2, 3]], max_tokens=90, method=method, method_params=params)
  assert out.tokens == generate(TARGET, PARAMS, [[1, 2, 3]], max_tokens=90).tokens
  # Of 64 positions, 60 are text: the draft model is asked at 4, 8, ..., 60 tokens.
  assert out.counters["accepted_at_depth"][:3] == [15, 15, 15]
  assert out.counters["target_forwards"] == 1 + 15 + 90 - 61


class Lower(ByteTokenizer):
  def encode_documents(self, texts):
    return super().encode_documents([text.upper() for text in texts])


class Blind:
  def encode(self, text):
    return []


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Translator(BYTES, ByteTokenizer()), "share a vocabulary: use the drafter `draft`"),
    (lambda: Translator(BYTES, Blind()), "the draft model lacks encode_documents, token_bytes"),
    (lambda: Translator(Lower(), LETTERS), "the tokens of the target do not spell the text"),
    (lambda: Translator(BYTES, LETTERS, 0), "look_back must be at least 1, got 0"),
    (lambda: CrossVocabulary(SMALL, 0), "length must be at least 1, got 0"),
    (lambda: CrossVocabulary(SMALL, max_drafts=0), "max_drafts must be at least 1, got 0"),
    (lambda: CrossVocabulary(SMALL, space=0), "space must be at least 1, got 0"),
    (lambda: check_model(SMALL, 258), "vocab_size 12, its tokenizer 258"),
  ],
)
def test_what_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_config_makes_the_drafter(monkeypatch):
  draft = TextModel(SMALL, SMALL_PARAMS, OTHER)
  monkeypatch.setattr("mtjax.pretrained.load_pretrained", lambda name, **_: draft)
  config = dict(draft_model="other", weights="stored", drafter=dict(length=3, look_back=2))
  target = TextModel(TARGET, PARAMS, LETTERS)
  drafter, (_, handle) = DRAFTERS["cross_vocabulary"](config, target)
  assert drafter == CrossVocabulary(SMALL, 3) and int(handle) > 0
