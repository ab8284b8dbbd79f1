"""Notebook appearance: representations are short and read no array; cards are escaped HTML."""

import dataclasses
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import pytest

import mtjax
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.decode.card import generation_card
from mtjax.display.cards import card
from mtjax.display.short import rounded, short_repr
from mtjax.models import Layer, Rope, TransformerConfig, XLNetConfig, summarize_weights
from mtjax.models.model import count_parameters
from mtjax.models.quantize import pack, to_int8
from mtjax.rounds.history import RoundRecord, TreeRecord
from mtjax.text import Completion, TextModel
from mtjax.trees import chain
from mtjax.types import Draft, DraftScheme, LayerKV

SIZES = dict(vocab_size=258, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16)


def tiny(layers=3, **settings):
  return mtjax.Model(TransformerConfig(**SIZES, layers=(Layer(),) * layers, **settings))


@pytest.mark.parametrize(
  ("layers", "written"),
  [
    ((Layer(),) * 30, "layers=(Layer(),) * 30"),
    ((Layer(),), "layers=(Layer(),)"),
    ((Layer(window=4), Layer()) * 13, "layers=(Layer(window=4), Layer()) * 13"),
    (
      ((Layer(window=4),) * 5 + (Layer(rope=Rope(theta=1e6)),)) * 4 + (Layer(window=4),) * 2,
      "layers=((Layer(window=4),) * 5 + (Layer(rope=Rope(theta=1000000.0)),)) * 4 + "
      "(Layer(window=4),) * 2",
    ),
    (
      (Layer(), Layer(rope=None), Layer(), Layer()),
      "layers=(Layer(),) + (Layer(rope=None),) + (Layer(),) * 2",
    ),
  ],
)
def test_a_config_is_a_short_expression_of_itself(layers, written):
  config = TransformerConfig(**SIZES, layers=layers, tied=False, extra_embeddings=1)
  text = repr(config)
  assert written in text and "tied=False" in text and "norm" not in text
  assert eval(text) == config
  other = XLNetConfig(vocab_size=9, dim=4, heads=1, head_dim=4, mlp_dim=4, depth=2)
  assert eval(repr(other)) == other


def test_a_model_is_one_line_and_counts_the_parameters_of_its_network():
  model = tiny(tied=False)
  params = model.init(jax.random.key(0))
  text = TextModel(model, params, ByteTokenizer(), "a/b")
  count = count_parameters(params)
  assert repr(text) == (
    "TextModel('a/b', 3 layers x 16, 2 heads of 8 (1 key/value), vocabulary 258, 2,048 positions: "
    f"{rounded(count)} parameters, float32, {4 * count / 1e3:.1f} kB)"
  )
  assert repr(model) == (
    "Model(3 layers x 16, 2 heads of 8 (1 key/value), vocabulary 258, 2,048 positions)"
  )
  for form in (to_int8(params), pack(params), pack(to_int8(params)), model.shapes()):
    assert summarize_weights(model, form).parameters == count
  assert summarize_weights(model, to_int8(params)).dtypes[0] == "int8"
  tied = tiny(predicts="masked")
  weights = tied.init(jax.random.key(0))
  assert summarize_weights(tied, pack(weights)).parameters == count_parameters(weights)
  assert repr(tied).endswith("positions, predicts masked)")


class Unreadable:
  """An array whose values cannot be read, as those of another process."""

  shape, dtype, size = (2, 3), jnp.dtype("int32"), 6

  def __array__(self, *_, **__):
    raise AssertionError("a representation has read an array")

  __str__ = __repr__ = __format__ = __iter__ = __array__


@pytest.mark.ill_typed
def test_carriers_show_the_form_of_their_arrays_and_read_none():
  tree = chain(4).tree(jnp.zeros((2, 5), jnp.int32))
  draft = Draft(tree.replace(token=Unreadable()), DraftScheme.DELTA)
  assert "token=int32[2, 3], parent=int32[2, 5]" in repr(draft) and len(repr(draft)) < 250
  assert repr(draft).endswith("height=4, breadth=1), scheme=DraftScheme.DELTA)")
  cache = tiny().allocate(2, 64)
  layer = "LayerKV(k=float32[2, 1, 64, 8], v=float32[2, 1, 64, 8])"
  assert repr(cache) == (f"KVCache(layers=(3 x {layer}), position=int32[2, 64], length=int32[2])")
  assert repr(LayerKV(Unreadable(), Unreadable())) == "LayerKV(k=int32[2, 3], v=int32[2, 3])"
  shown = []
  abstract = jax.eval_shape(lambda c: shown.append(repr(c)) or c, cache)  # tracers
  assert shown == [repr(cache)] == [repr(abstract)]


@dataclasses.dataclass(frozen=True)
class Mixed:
  many: tuple
  text: str
  table: dict
  missing: None = None

  __repr__ = short_repr


def test_long_values_are_counted_or_cut():
  assert repr(Mixed((1, 1, 2), "a" * 99, {"x": Unreadable()})) == (
    f"Mixed(many=(2 x 1, 2), text={'a' * 29 + '…' + 'a' * 29!r}, table={{1 names: x}})"
  )
  assert repr(Mixed(tuple(range(9)), "", {})).startswith("Mixed(many=9 items, text=''")


@pytest.fixture(scope="module")
def generated():
  model = tiny(1, max_position=64)
  text = TextModel(model, model.init(jax.random.key(1)), ByteTokenizer())
  settings = dict(method=mtjax.Speculative(mtjax.PromptLookup(length=2)), max_tokens=6, eos=())
  return text.generate(["ab", "<b>&"], history=True, **settings)


def test_a_generation_is_one_line_and_its_pieces_are_its_text(generated):
  completions, generation = generated
  assert repr(generation).startswith("Generation(2 rows, 12 tokens, ")
  assert repr(generation).endswith("finish: length 2)") and len(repr(generation)) < 150
  assert ["".join(row) for row in generation.pieces] == [c.text for c in completions]
  assert [len(row) for row in generation.pieces] == [6, 6]
  long = Completion("a" * 500, "b" * 500, [1], "eos")
  assert len(repr(long)) < 200 and repr(long).endswith("1 tokens, finish 'eos')")


class Spans(HTMLParser):
  """The text and title of each token of a card; a tag that is not closed is an error."""

  def __init__(self, html):
    super().__init__()
    self.open, self.found = [], []
    self.feed(html)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.open.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop()[0] == tag

  def handle_data(self, data):
    if self.open[-1][1].get("title"):
      self.found.append((data, self.open[-1][1]))


def test_a_card_shows_each_token_with_its_proposer_and_round():
  history = [
    RoundRecord({}, (TreeRecord((0,), (-1,), (None,), (0,), 7),)),
    RoundRecord({}, (TreeRecord((7, 8), (-1, 0), (None, None), (0, 1), 9),)),
  ]
  pieces = [["<b>", "&amp;", "\n"]]
  html = generation_card("a <title>", [[7, 8, 9]], [[False, True, False]], pieces, history)
  spans = Spans(html).found
  assert [text for text, _ in spans] == pieces[0] and "a &lt;title&gt;" in html
  titles = ["token 7, round 0", "token 8, round 1", "token 9, round 1"]
  assert [attrs["title"] for _, attrs in spans] == titles
  tints = [attrs["style"] for _, attrs in spans]
  assert tints[0] == tints[2] != tints[1]
  plain = generation_card("", [[7, 8, 9]], [[False, True, False]], None, None)
  assert [text for text, _ in Spans(plain).found] == ["7 ", "8 ", "9 "]


def test_cards_of_real_objects_are_whole_and_small(generated):
  _, generation = generated
  html = generation._repr_html_()
  assert Spans(html).found and html.count("<span") == 12 + 2 and len(html) < 4000  # 2: the legend
  model = tiny(1)
  html = TextModel(model, model.shapes(), ByteTokenizer(), "<name>")._repr_html_()
  assert "&lt;name&gt;" in html and "258" in html and "float32" in html and not Spans(html).found
  rows = [[1] * 600] * 9
  html = generation_card("", rows, [[True] * 600] * 9, None, None)
  assert len(Spans(html).found) == 8 * 512
  assert "and 88 more tokens" in html and "and 1 more rows" in html
  assert card("t", [], ()).count("<table") == 0
