"""Text from tokens: streamed pieces make up the text, stop strings never show."""

import jax
import pytest

from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.decode import generation as decode
from mtjax.decode.speculative import Speculative
from mtjax.draft import PromptLookup
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

WARM = Sampling(temperature=1.0)


@pytest.fixture(scope="module")
def text():
  config = TransformerConfig(
    vocab_size=258, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
  )
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(0)), ByteTokenizer())


def pieces(row, tokens, size):
  out = [row.feed(tokens[at : at + size]) for at in range(0, len(tokens), size)]
  return "".join([*out, row.finish()])


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
  ("given", "stop", "shown"),
  [
    ("abcabd", (), "abcabd"),
    ("abcabd!", ("abd",), "abc"),
    ("one\n\ntwo", ("\n\n",), "one"),
    ("one\ntwo\n", ("\n\n",), "one\ntwo\n"),  # the beginning of a stop string that never came
    ("zwölf Bären \N{BEAR FACE}", ("\N{BEAR FACE}",), "zwölf Bären "),
    ("abc", ("abc", "b"), "a"),
  ],
)
def test_pieces_of_any_size_make_up_the_text_before_a_stop(given, stop, shown, size):
  tokens = list(given.encode())
  if stop == ("abc", "b"):
    tokens = tokens[:2]  # decoding ends with the token in which the first stop string ends
  assert pieces(TextStream(ByteTokenizer(), stop), tokens, size) == shown


def test_streamed_text_is_generated_text(text):
  settings = dict(max_tokens=24, sampling=WARM, key=3, stop=("e", "\n"))
  results = []
  parts = list(
    text.stream(["ab", "The"], every=3, on_finish=lambda *r: results.append(r), **settings)
  )
  completions, generation = text.generate(["ab", "The"], **settings)
  assert ["".join(row) for row in zip(*parts, strict=True)] == [c.text for c in completions]
  (streamed, counted) = results[0]
  assert streamed == completions and counted.tokens == generation.tokens
  assert not any("e" in c.text or "\n" in c.text for c in completions)


def test_token_ids_are_a_prompt_too(text):
  by_text, _ = text.generate(["ab"], max_tokens=8)
  by_ids, _ = text.generate([list(b"ab")], max_tokens=8)
  assert by_ids == by_text


def test_every_end_token_of_the_tokenizer_ends_a_row(text):
  _, free = text.generate(["ab"], max_tokens=8, eos=())
  tokenizer = ByteTokenizer()
  tokenizer.eos_ids = (256, free.tokens[0][3])
  _, ended = TextModel(text.model, text.params, tokenizer).generate(["ab"], max_tokens=8)
  first = free.tokens[0].index(free.tokens[0][3])
  assert ended.tokens[0] == free.tokens[0][: first + 1] and ended.finish == ["eos"]


class Spelled(ByteTokenizer):
  """Bytes whose ids 256 and 257 can be written in a stop string."""

  def special_tokens(self):
    return {"<end>": 256, "<pad>": 257}


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
  ("tokens", "stop", "shown"),
  [
    ([*b"ab", 257, *b"cd"], ("<pad>",), "ab"),
    ([*b"ab", 257, *b"cd"], ("<end>",), "abcd"),
    ([*b"ab", 257, *b"cd"], ("b<pad>c",), "a"),
    ([*b"ab", 257, *b"cd"], ("bc",), "a"),
    ([*b"ab", 257, *b"cd"], ("<pad>\n",), "abcd"),
    ([*b"ab", 256, 257, *b"\ncd"], ("<end>\n",), "ab"),
    ([*"ä".encode(), 257, *b"x"], ("<pad>",), "ä"),
    ([*b"a<pad>b"], ("<pad>",), "a"),
    ([*b"xyz"], ("xyz", "y"), "x"),  # whichever ends first
  ],
)
def test_text_ends_before_a_special_token_that_is_a_stop(tokens, stop, shown, size):
  assert pieces(TextStream(Spelled(), stop), tokens, size) == shown


@pytest.mark.parametrize("method", [decode.Autoregressive(), Speculative(PromptLookup(length=3))])
def test_a_row_ends_at_a_special_token_that_is_a_stop(text, method):
  model = TextModel(text.model, text.params, Spelled())
  settings = dict(max_tokens=8, eos=(), method=method, sampling=Sampling(logit_bias={257: 1e6}))
  (completion,), _ = model.generate(["ab"], stop=["<pad>"], **settings)
  assert (completion.text, completion.tokens, completion.finish) == ("", [257], "stop")
  results = []
  streamed = model.stream(
    ["ab"], stop=["<pad>"], on_finish=lambda *r: results.append(r), **settings
  )
  assert list(streamed) == [] and results[0][0] == [completion]


def test_end_tokens_that_the_model_cannot_write_are_harmless(text):
  tokenizer = ByteTokenizer()
  tokenizer.eos_ids = (256, 258)
  settings = dict(max_tokens=4)
  expected = text.generate(["ab"], **settings)[0]
  assert TextModel(text.model, text.params, tokenizer).generate(["ab"], **settings)[0] == expected
