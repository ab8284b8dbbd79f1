"""Generative perplexity and entropy: by hand, of repeated text, and after prompts."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.generative import TextQuality, entropy, judge_texts
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.text import TextModel
from tests.compiled import forward

CONFIG = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=64)


@pytest.fixture(scope="module")
def judge():
  model = Model(CONFIG)
  return TextModel(model, model.init(jax.random.key(3)), ByteTokenizer())


def test_figures_are_those_of_the_conditionals(judge):
  prompt, text = "ab", "bad bed"
  ids = [judge.tokenizer.bos_id, *prompt.encode(), *text.encode()]
  logits = forward(judge.model, judge.params, frontier_lib.causal(np.array([ids]))).logits[0]
  log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
  by_hand = -sum(log_p[place - 1, ids[place]] for place in range(3, len(ids)))
  (one,) = judge_texts(judge, [text], [prompt])
  assert (one.tokens, one.bytes) == (7, 7) and one.nats == pytest.approx(by_hand, rel=1e-5)
  # b, d twice, a, e, space: 2/7 twice and 1/7 three times.
  expected = -(2 * 2 / 7 * math.log2(2 / 7) + 3 / 7 * math.log2(1 / 7))
  assert one.entropy == pytest.approx(expected)
  quality = TextQuality.of([one])
  assert quality.perplexity == pytest.approx(math.exp(by_hand / 7), rel=1e-5)
  assert quality.bits_per_byte == pytest.approx(by_hand / math.log(2) / 7, rel=1e-5)


def test_a_judge_of_equal_logits_has_the_perplexity_of_its_vocabulary(judge):
  even = dataclasses.replace(judge, params=jax.tree.map(np.zeros_like, judge.params))
  quality = TextQuality.of(judge_texts(even, ["abcd", "x" * 100]))
  assert quality.perplexity == pytest.approx(258, rel=1e-5)
  assert quality.entropy == pytest.approx((2 + 0) / 2), "the mean over texts"


def test_text_that_repeats_itself_has_a_low_perplexity_and_a_low_entropy():
  import mtjax

  judge = mtjax.load("target")
  repeated = "0" * 200
  plain = (
    "Heidi looked out over the green slopes, where the goats were grazing; far below, a river "
    "shone between dark trees, and someone was calling her name from the hut."
  )
  one, other = (TextQuality.of(judge_texts(judge, [text])) for text in (repeated, plain))
  # The degenerate text looks 20 times better, and only its entropy tells.
  assert one.perplexity < 5 < 50 < other.perplexity
  assert one.entropy == 0 and other.entropy > 5


def test_empty_texts_count_nothing_and_alone_are_refused(judge):
  first, empty = judge_texts(judge, ["abc", ""], ["", "abc"])
  assert (empty.nats, empty.tokens, empty.entropy) == (0, 0, 0)
  assert TextQuality.of([first, empty]).entropy == first.entropy
  with pytest.raises(ValueError, match="all texts are empty"):
    TextQuality.of([empty])
  with pytest.raises(ValueError, match="2 texts and 1 prompts"):
    judge_texts(judge, ["a", "b"], ["c"])
  assert entropy([]) == 0
