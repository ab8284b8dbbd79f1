"""Uniform canvases with constraints: every text is accepted, whatever its canvases hold."""

import functools

import numpy as np
import pytest

from mtjax.diffusion.denoising import replay
from mtjax.diffusion.noising.forward import HybridNoise
from mtjax.diffusion.uniform import (
  AcceptOrRenoise,
  NoisePosterior,
  denoise_uniform,
  program,
  stream_uniform,
)
from mtjax.diffusion.uniform.constrained import restrict_canvas
from mtjax.rounds import run
from mtjax.sampling.categorical import argmax
from mtjax.sampling.logits import Sampling
from tests.constraints.toys import dfa_of
from tests.diffusion.test_uniform_canvases import ENCODER, WHOLE, V, params_of

EOS, ROWS = 9, 16
AGAIN = {1: 1, 5: 3}
WORDS = dfa_of([AGAIN, {2: 2, 4: 5}, {3: 1}, {5: 4}, {6: 5}, AGAIN], {5}, V)
BOTH = [WORDS, None] * (ROWS // 2)
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 1]] * (ROWS // 2)
# Of most positions the filter leaves no token that fits the ones before it.
FILTER = Sampling(top_p=0.3)
CASES = {
  "renoised": (WHOLE, AcceptOrRenoise(t_max=1.5, gamma=1.0, max_entropy=2.0)),
  "masks and noise": (WHOLE, NoisePosterior(noise=HybridNoise(0.2))),
}


def run_of(name, constraint, prompts=PROMPTS, **settings):
  network, rule = CASES[name]
  settings = dict(length=7, steps=4, rule=rule, sampling=FILTER, eos=[EOS], key=1) | settings
  return denoise_uniform(network, params_of(network), prompts, constraint=constraint, **settings)


@functools.cache
def half_bound(name):
  """Returns a run of rows with a constraint and rows without, in turns."""
  return run_of(name, BOTH)


def accepted(tokens):
  return WORDS.accepts(tokens[:-1] if tokens[-1] == EOS else tokens)


@pytest.mark.parametrize("name", CASES)
def test_every_text_is_accepted(name):
  """A text of 7 tokens has two canvases of 4, the last of which ends behind it."""
  tokens = half_bound(name).tokens
  assert all(map(accepted, tokens[::2])) and len({tuple(one) for one in tokens[::2]}) > 2
  assert not any(map(accepted, tokens[1::2]))


def test_another_constraint_compiles_nothing():
  half_bound("renoised")
  before = run.whole._cache_size()
  other = dfa_of([{1: 1}, {4: 2, 5: 1}, {6: 0}], {1}, V)
  found = run_of("renoised", [other, None] * (ROWS // 2)).tokens[::2]
  assert all(other.accepts([token for token in one if token != EOS]) for one in found)
  assert run.whole._cache_size() == before


@pytest.mark.parametrize("name", CASES)
def test_a_trace_is_that_of_the_constrained_run_and_is_replayed(name):
  network, _ = CASES[name]
  traced = run_of(name, BOTH, trace=True)
  assert traced.tokens == half_bound(name).tokens
  passes = traced.trace.passes
  assert np.isfinite(passes.log_prob).all()
  again = replay(network, params_of(network), traced.trace)
  np.testing.assert_allclose(again, passes.log_prob, atol=1e-6)


def test_positions_restricted_alone_are_not_enough(monkeypatch):
  """Negative control: each position of a text allowed by itself, all decided at once."""

  def alone(job, state, logits, sampled_from, keys):
    return argmax(restrict_canvas(job, state, logits))

  monkeypatch.setattr(program, "text_along", alone)
  # Of so many rows no other test has a program.
  tokens = run_of("masks and noise", WORDS, prompts=PROMPTS[:6]).tokens
  assert not all(map(accepted, tokens))


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    (dict(length=1), "the shortest text that its constraint accepts has 2"),
    (dict(eos=()), "give eos"),
    (dict(constraint=[WORDS]), f"1 values for a batch of {ROWS}"),
    (dict(sampling=Sampling(logit_bias={4: -np.inf})), r"bans the tokens \[4\]"),
  ],
)
def test_what_cannot_be_is_refused(changed, message):
  for call in (denoise_uniform, stream_uniform):
    settings = dict(length=7, eos=[EOS], constraint=WORDS) | changed
    with pytest.raises(ValueError, match=message):
      call(ENCODER, {}, PROMPTS, **settings)
