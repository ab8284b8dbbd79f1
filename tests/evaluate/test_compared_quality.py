"""Texts of two methods compared prompt by prompt."""

import json
import math

import numpy as np
import pytest

from mtjax.evaluate.denoising.compared_quality import ComparedQuality, compare_quality
from mtjax.evaluate.generative import JudgedText
from mtjax.evaluate.prompt_windows import prompt_windows
from tests import tiny_model
from tests.forked import launch


def judged(nats, entropy):
  return [JudgedText(n, 4, 8, e) for n, e in zip(nats, entropy, strict=True)]


def test_the_error_of_a_change_is_that_of_pairs():
  """Means 4 and 5, so the quotient is 1.25; relative deviations of pairs differ by 0 or 0.05."""
  reference = judged([2.0, 4.0, 6.0], [4.0, 4.0, 4.0])
  found = compare_quality(judged([2.5, 5.0, 7.5], [3.0, 4.0, 5.0]), reference)
  # The texts are worse in proportion to the reference's: what varies is the prompt alone.
  assert found.bits == pytest.approx(0.25) and found.bits_error == pytest.approx(0, abs=1e-12)
  # Entropies of 3, 4, 5: a mean of 4, and a deviation of 1 over sqrt(3) texts.
  assert found.entropy == 0 and found.entropy_error == pytest.approx(1 / math.sqrt(3) / 4)


def test_the_error_is_that_of_many_samples():
  rng = np.random.default_rng(0)

  def change():
    prompt = rng.normal(size=100)
    both = [judged(20 + 3 * prompt + rng.normal(size=100), np.full(100, 4.0)) for _ in range(2)]
    return compare_quality(*both)

  found = [change() for _ in range(400)]
  spread = np.std([one.bits for one in found])
  assert np.mean([one.bits_error for one in found]) == pytest.approx(spread, rel=0.1)
  # Unpaired, the prompts would make it three times as large.
  assert spread < 0.5 * math.sqrt(2) * math.sqrt(10) / 20 / math.sqrt(100)


def test_a_change_is_within_a_tolerance_only_if_both_figures_are():
  assert ComparedQuality(0.009, 0.004, -0.009, 0.002).within(0.01)
  assert not ComparedQuality(0.011, 0.0, 0.0, 0.0).within(0.01)
  assert not ComparedQuality(-0.2, 0.0, -0.011, 0.0).within(0.01)


@pytest.mark.parametrize("count", [1, 2])
def test_texts_that_are_no_pairs_are_refused(count):
  with pytest.raises(ValueError, match="pairs of texts are compared"):
    compare_quality(judged([1.0] * count, [1.0] * count), judged([1.0], [1.0]))


def test_prompts_are_windows_of_documents_that_are_long_enough():
  texts = dict(a=[(np.arange(5), 5), (np.arange(100, 140), 40)], b=[(np.arange(200, 210), 10)])
  windows = prompt_windows(texts, count=4, length=10)
  assert windows == prompt_windows(texts, count=4, length=10)
  assert [len(window) for window in windows] == [10] * 8
  assert all(window == list(range(window[0], window[0] + 10)) for window in windows)
  assert all(100 <= window[0] <= 130 for window in windows[:4]) and windows[4][0] == 200
  with pytest.raises(ValueError, match="'b' has no document of 11 tokens"):
    prompt_windows(texts, count=1, length=11)


def test_the_launcher_compares_each_method_with_one_token_per_pass(tmp_path):
  masked = tiny_model.save(tmp_path / "masked", **tiny_model.MASKED)
  judge = tiny_model.save(tmp_path / "judge")
  (tmp_path / "x.txt").write_text("a short text to cut prompts from, twice as long as they are")
  path, command = tmp_path / "x.json", ("experiments.diffusion.quality", f"--model={masked}")
  command += (f"--judge={judge}", f"--text=x=file:{tmp_path}/x.txt", "--prompts=2", "--length=8")
  command += ("--prompt_tokens=4", "--block_length=8", f"--results={path}")
  code, shown, errors = launch(*command, "--case=dilated")
  assert code == 0 and "dilated" in shown, errors
  rows = json.loads(path.read_text())["rows"]
  assert [row["tokens_per_forward"] for row in rows] == [1, pytest.approx(8 / 3)]
  assert rows[0]["bits_change"] is None and rows[1]["bits_error"] > 0
  code, _, errors = launch(*command, "--case=llada, 2 per pass")
  assert code == 2 and "'llada, 2 per pass' is none of: mdlm, 2 per pass;" in errors
