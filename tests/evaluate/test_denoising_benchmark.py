"""The benchmark of denoising: what it counts, compares and refuses, on tiny models."""

import dataclasses
import math

import pytest

from mtjax.bench.diffusion.bookkeeping import pass_time
from mtjax.bench.diffusion.cases import CACHES, bidirectional_cases, block_cases
from mtjax.bench.diffusion.long import long_texts
from mtjax.bench.diffusion.methods import DenoisingCase, DenoisingResult, error_of, measure
from mtjax.diffusion.texts import network_of
from mtjax.evaluate.generative import JudgedText, TextQuality
from mtjax.pretrained import load_pretrained
from mtjax.registry.denoising.denoiser import Denoiser
from tests import tiny_model

PROMPTS = [[5, 6, 7, 8]] * 2
ONE = Denoiser(8, 4, 8, "sampled_probability")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
  return load_pretrained(str(tiny_model.save(tmp_path_factory.mktemp("m"), **tiny_model.MASKED)))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
  return load_pretrained(str(tiny_model.save(tmp_path_factory.mktemp("j"))))


def test_tokens_per_forward_quality_and_times_of_each_case(masked, judge):
  cases = [
    DenoisingCase("one", ONE, 1.0, "one"),
    DenoisingCase("two", dataclasses.replace(ONE, steps=4), 1.0, "one"),
  ]
  one, two = measure(masked, judge, cases, PROMPTS, batches=[1, 2], rounds=1)
  assert (one.tokens_per_forward, two.tokens_per_forward) == (1, 2)
  assert one.quality.texts == 2 and one.quality.bits_per_byte > 0
  assert one.speed_up == {1: 1, 2: 1} and set(two.seconds) == {1, 2}


@pytest.mark.parametrize(
  ("reference", "batches", "message"),
  [("other", [1], "the reference 'other' of 'one' is none"), ("one", [3], "a multiple of .* 3")],
)
def test_wrong_comparisons_are_refused(masked, judge, reference, batches, message):
  with pytest.raises(ValueError, match=message):
    case = DenoisingCase("one", ONE, 0.0, reference)
    measure(masked, judge, [case], PROMPTS, batches=batches, rounds=1)


@pytest.mark.parametrize(
  ("bits", "entropy", "kept"), [(2.01, 4, True), (2.03, 4, False), (1.5, 3.9, False)]
)
def test_a_text_is_as_good_only_if_it_is_as_varied(bits, entropy, kept):
  def result(bits, entropy):
    quality = TextQuality(1, 1.0, bits, entropy)
    return DenoisingResult(DenoisingCase("x", ONE, 0.0, "x"), 1.0, quality, 0.0, {}, {})

  assert result(bits, entropy).keeps(result(2.0, 4.0)) is kept


def test_the_error_is_that_of_the_mean_where_texts_are_equally_long():
  judged = [JudgedText(nats, 4, 8, 1.0) for nats in (1.0, 2.0, 6.0)]
  # Deviations from the mean, 3: -2, -1 and 3; variance 7.
  expected = math.sqrt(7 / 3) / 8 / math.log(2)
  assert error_of(judged) == pytest.approx(expected)


def test_decisions_are_a_part_of_a_pass(masked):
  spent = pass_time(network_of(masked), masked.params, PROMPTS[:1], ONE, rounds=1)
  assert spent.whole > 0 and spent.decisions > 0


def test_a_long_text_is_the_same_with_its_cache(tmp_path):
  text = load_pretrained(str(tiny_model.save(tmp_path, **tiny_model.MASKED, block_length=4)))
  done = long_texts(text, PROMPTS[0], length=8, rounds=1)
  assert done.same == {"none": 1, "exact": 1} and done.ratio("none") == 1


def test_every_cache_of_bidirectional_models_is_compared():
  cases = bidirectional_cases(32, 8)
  names = {case.name for case in cases}
  assert {case.denoiser.cache for case in cases} == {"none", *CACHES}
  assert {case.reference for case in cases + block_cases(32)} <= names | {
    case.name for case in block_cases(32)
  }
