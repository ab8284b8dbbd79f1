"""Machines of blocks with constraints: every text is accepted, and traces know what was sampled."""

import functools

import numpy as np
import pytest

from mtjax.diffusion.denoising import MaskedNetwork, denoise_by_blocks, replay, stream_by_blocks
from mtjax.diffusion.denoising.machines import BlockBuffer, Pipeline, SubBlocks, TokenMerge
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from tests.constraints.toys import dfa_of
from tests.diffusion.tiny_masked import BLOCKS, MASK, MODEL, PARAMS, PROMPTS, V

EOS, ROWS = 9, 16
AGAIN = {1: 1, 5: 3}
WORDS = dfa_of([AGAIN, {2: 2, 4: 5}, {3: 1}, {5: 4}, {6: 5}, AGAIN], {5}, V)
# Greedy rows, and rows whose filter leaves few tokens of a position.
WARM = Sampling(temperature=[0.0] * 4 + [1.0] * (ROWS - 4), top_p=0.5)
SHIFTED = MaskedNetwork(MODEL, MASK, shifted=True, block_length=4)
MACHINES = {
  "pipeline": (BLOCKS, Pipeline(add=0.25, activate=0.5, threshold=0.3)),
  "edited buffer": (BLOCKS, BlockBuffer(add=0.25, activate=0.5, threshold=0.3, edit=0.2)),
  "merged tokens": (BLOCKS, TokenMerge(threshold=0.3, confident=0.8, in_flight=2)),
  "sub-blocks": (SHIFTED, SubBlocks(threshold=0.3, sub_block=2)),
}


def run_of(name, constraint, **settings):
  network, machine = MACHINES[name]
  settings = dict(length=8, sampling=WARM, eos=[EOS], key=1) | settings
  prompts = [PROMPTS[row // 2 % 2] for row in range(ROWS)]
  return denoise_by_blocks(
    network, PARAMS, prompts, machine=machine, constraint=constraint, **settings
  )


@functools.cache
def half_bound(name):
  """Returns the texts of rows with a constraint, and of rows without, in one batch."""
  tokens = run_of(name, [WORDS, None] * (ROWS // 2)).tokens
  return tokens[::2], tokens[1::2]


def accepted(tokens):
  return WORDS.accepts(tokens[:-1] if tokens[-1] == EOS else tokens)


@pytest.mark.parametrize("name", MACHINES)
def test_every_text_is_accepted(name):
  bound, free = half_bound(name)
  assert all(map(accepted, bound)) and len({tuple(one) for one in bound}) > 1
  assert not any(map(accepted, free))


def test_another_constraint_compiles_nothing():
  half_bound("pipeline")
  before = run.whole._cache_size()
  other = dfa_of([{1: 1}, {4: 2, 5: 1}, {6: 0}], {1}, V)
  found = run_of("pipeline", [other, None] * (ROWS // 2)).tokens[::2]
  assert all(other.accepts([token for token in one if token != EOS]) for one in found)
  assert run.whole._cache_size() == before


@pytest.fixture(scope="module")
def traced():
  """Returns a constrained run of edits and soft inputs, with its trace."""
  return run_of("merged tokens", [WORDS, None] * (ROWS // 2), trace=True)


def test_a_trace_is_that_of_the_constrained_run_and_is_replayed(traced):
  bound, free = half_bound("merged tokens")
  assert traced.tokens[::2] == bound and traced.tokens[1::2] == free
  passes = traced.trace.passes
  assert np.isfinite(passes.log_prob).all() and passes.revision.edited[:, ::2].any()
  again = replay(BLOCKS, PARAMS, traced.trace)
  np.testing.assert_allclose(again, passes.log_prob, atol=1e-6)


def test_a_replay_without_the_constraint_is_another(traced):
  """Negative control: the constraint of bound rows is part of their distributions."""
  job, machine = traced.trace.settings
  free = traced.trace.replace(settings=(job.replace(constraint=None), machine))
  difference = np.asarray(replay(BLOCKS, PARAMS, free)) - traced.trace.passes.log_prob
  assert np.nanmax(np.abs(difference[:, 1::2])) < 1e-6
  assert np.nanmin(difference[:, ::2]) < -1e-2


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    (dict(constraint=dfa_of([{1: 1}, *({1: n} for n in range(2, 10)), {}], {9}, V)), "has 9: give"),
    (dict(eos=()), "give eos"),
    (dict(constraint=[WORDS]), "1 values for a batch of 2"),
    (dict(constraint=dfa_of([{MASK: 1}, {}], {1}, V)), "no text satisfies the constraint"),
    (dict(sampling=Sampling(logit_bias={4: -np.inf})), r"bans the tokens \[4\]"),
  ],
)
@pytest.mark.parametrize("call", [denoise_by_blocks, stream_by_blocks])
def test_what_cannot_be_is_refused(call, changed, message):
  settings = dict(length=8, machine=Pipeline(), eos=[EOS], constraint=WORDS) | changed
  with pytest.raises(ValueError, match=message):
    call(BLOCKS, PARAMS, PROMPTS, **settings)
