"""Arguments that may come in several forms: numbers of numpy, large seeds, one text for many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.arguments import integer, texts
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.decode.generation import generate, stream
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import Sampling, row_keys, seed_key
from mtjax.text import TextModel

pytestmark = pytest.mark.ill_typed  # numpy's numbers and lists, where the annotations say int

PROMPTS = [[1, 2, 3], [4]]
LETTERS = [bytes([97 + token % 26]) for token in range(48)]


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint8, np.array, jnp.array])
def test_whole_numbers_of_every_kind(kind):
  number = integer(kind(7), "size")
  assert number == 7 and type(number) is int


@pytest.mark.parametrize("value", [4.0, np.float32(4), "4", None, True, [4], np.array([4, 5])])
def test_what_is_no_whole_number_is_named(value):
  with pytest.raises(ValueError, match="size must be a whole number, got"):
    integer(value, "size")


def test_numpy_numbers_are_settings_of_a_generation(causal):
  model, params, _ = causal
  plain = dict(max_tokens=[4, 6], key=3, sampling=Sampling(temperature=1.0, top_k=5))
  numpy = dict(
    max_tokens=np.array([4, 6]),
    key=np.int64(3),
    sampling=Sampling(temperature=np.float32(1), top_k=np.array([5, 5])),
  )
  expected = generate(model, params, PROMPTS, **plain).tokens
  assert generate(model, params, [np.array(p) for p in PROMPTS], **numpy).tokens == expected
  one = dict(plain, max_tokens=4), dict(numpy, max_tokens=np.int64(4))
  first, second = (generate(model, params, PROMPTS, **settings).tokens for settings in one)
  assert first == second
  pieces = list(stream(model, params, PROMPTS, every=np.int64(3), **numpy))
  assert [sum((piece[row] for piece in pieces), []) for row in range(2)] == expected


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(max_tokens=2.5), "max_tokens must be a whole number, got 2.5"),
    (dict(max_tokens=[2, None]), "max_tokens must be a whole number, got None"),
    (dict(key=0.5), "is a seed and must be a whole number, got 0.5"),
    (dict(key=-1), "a seed is a whole number from 0 to 2..64 - 1, got -1"),
    (dict(key=2**64), "a seed is a whole number from 0 to 2..64 - 1"),
    (dict(key=[1, 2.5]), "is a seed and must be a whole number, got 2.5"),
    (dict(key=jnp.zeros((2,), jnp.uint32)), "must be a whole number"),
    (dict(sampling=Sampling(top_k=2.5)), "top_k must be a whole number, got 2.5"),
    (dict(prompts="12"), "prompt 0 is the text '1': give token ids here, and"),
    (dict(prompts=["12"]), "prompt 0 is the text '12'"),
    (dict(prompts=[1, 2]), "prompt 0 is 1: prompts are a list of lists of token ids"),
    (dict(prompts=[[1], [1.5]]), "a token of prompt 1 must be a whole number, got 1.5"),
  ],
)
@pytest.mark.parametrize("run", [generate, stream])
def test_mistakes_are_named_before_the_work(causal, run, settings, message):
  model, params, _ = causal
  with pytest.raises(ValueError, match=message):
    run(model, params, **(dict(prompts=PROMPTS, max_tokens=2) | settings))


def test_seeds_below_2_to_the_32_are_jax_seeds_and_no_two_seeds_are_one():
  for seed in (0, 3, 2**31, 2**32 - 1):
    assert seed_key(np.uint64(seed)) == seed_key(seed) == jax.random.key(seed)
  seeds = [0, 1, 2**31, 2**32, 2**32 + 1, 2**33, 2**63, 2**63 + 1, 2**64 - 1]
  data = {tuple(jax.random.key_data(seed_key(seed)).tolist()) for seed in seeds}
  assert len(data) == len(seeds)


def test_keys_are_taken_as_they_are():
  keys = jax.random.split(jax.random.key(1), 3)
  assert (row_keys(keys, 3) == keys).all()
  assert (row_keys(keys[0], 2) == row_keys(jax.random.split(jax.random.key(1), 3)[0], 2)).all()
  with pytest.raises(ValueError, match="for a batch of 2"):
    row_keys(keys, 2)
  with pytest.raises(ValueError, match="seeds for a batch of 3 must be one per row.* got 2"):
    row_keys([1, 2], 3)


def test_a_row_with_a_seed_of_its_own_is_the_row_alone(causal):
  model, params, _ = causal
  settings = dict(max_tokens=4, sampling=Sampling(temperature=1.0))
  both = generate(model, params, PROMPTS, key=[7, 2**40], **settings).tokens
  alone = [
    generate(model, params, [prompt], key=seed, **settings).tokens[0]
    for prompt, seed in zip(PROMPTS, (7, 2**40), strict=True)
  ]
  assert both == alone


@pytest.fixture(scope="module")
def text(causal):
  model, params, _ = causal

  class Letters(ByteTokenizer):
    """Ids of the tiny model, as letters."""

    eos_ids = ()

    def encode(self, text):
      return [byte - 97 for byte in text.encode()]

    def token_bytes(self):
      return LETTERS

  return TextModel(model, params, Letters())


def test_one_text_is_a_list_of_one(text):
  (listed,), of_list = text.generate(["abc"], max_tokens=12)
  (alone,), of_text = text.generate("abc", max_tokens=12)
  assert alone == listed and of_text.tokens == of_list.tokens
  pieces = list(text.stream("abc", max_tokens=12))
  assert {len(piece) for piece in pieces} == {1}
  assert "".join(piece[0] for piece in pieces) == listed.text

  word = listed.text[3:5]
  expected, _ = text.generate(["abc"], max_tokens=12, stop=[word])
  for stop in (word, (word,), iter([word])):
    completions, _ = text.generate(["abc"], max_tokens=12, stop=stop)
    assert completions == expected and completions[0].finish == "stop"
  pieces = list(text.stream("abc", max_tokens=12, stop=word))
  assert "".join(piece[0] for piece in pieces) == expected[0].text


def test_one_stop_string_is_compiled_as_one():
  listed = StopStrings.compile(["ab"], LETTERS).step
  for alone in ("ab", b"ab"):
    assert (StopStrings.compile(alone, LETTERS).step == listed).all()
  for wrong in ("", [""], [], [65]):
    with pytest.raises(ValueError, match="must hold at least one character"):
      StopStrings.compile(wrong, LETTERS)


def test_stop_strings_that_are_no_texts_are_refused(text):
  with pytest.raises(ValueError, match="stop strings are texts, got 5"):
    text.generate("abc", stop=[5])
  for prompts in (b"abc", [b"abc"]):
    with pytest.raises(ValueError, match="prompt 0 is bytes: a prompt is a text or a list of"):
      text.generate(prompts)


def test_documents_may_be_one_text():
  assert texts("ab") == ["ab"] and texts(b"ab") == [b"ab"] and texts(("ab", "c")) == ["ab", "c"]
  assert ByteTokenizer().encode_documents("ab") == [b"ab"]
