"""Denoising with constraints: every text of every policy is accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, replay
from mtjax.diffusion.order import Credit, MaxProbability, RandomPositions
from mtjax.diffusion.revise import EditTokens, RemdmLoop, Wino
from mtjax.diffusion.transfer import Ancestral, LladaCounts, Threshold
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from tests.constraints.toys import dfa_of
from tests.diffusion.tiny_masked import BLOCKS, MASK, PARAMS, PROMPTS, WHOLE, V, logits_of

EOS = 9
AGAIN = {1: 1, 5: 3}
WORDS = dfa_of([AGAIN, {2: 2, 4: 5}, {3: 1}, {5: 4}, {6: 5}, AGAIN], {5}, V)
WARM = Sampling(temperature=1.0, top_p=0.9)
PLAN = BlockPlan(length=8, block_length=4, steps=4)
EVERY = [[True] * len(prompt) for prompt in PROMPTS] * 16


def rows_of(constraint, *, network=WHOLE, prompts=PROMPTS * 16, **settings):
  settings = dict(plan=PLAN, sampling=WARM, eos=[EOS], key=1) | settings
  return denoise(network, PARAMS, prompts, constraint=constraint, **settings).tokens


def accepted(tokens):
  return WORDS.accepts(tokens[:-1] if tokens[-1] == EOS else tokens)


POLICIES = {
  "llada": DecidingPolicy(MaxProbability(), LladaCounts()),
  "ancestral": DecidingPolicy(RandomPositions(), Ancestral()),
  "one pass": DecidingPolicy(RandomPositions(), LladaCounts()),
  "remasked": DecidingPolicy(RandomPositions(), Ancestral(), RemdmLoop()),
  "edited": DecidingPolicy(MaxProbability(), LladaCounts(), EditTokens(threshold=0.1)),
  "shadows": DecidingPolicy(MaxProbability(), Threshold(0.3), Wino()),
  "credit": DecidingPolicy(Credit(), LladaCounts()),
}


# These choose positions in an order of their own, and tokens as the others do.
AGAIN = ("one pass", "ancestral", "credit")


@pytest.mark.parametrize(
  "name",
  [pytest.param(name, marks=pytest.mark.slow) if name in AGAIN else name for name in POLICIES],
)
def test_every_text_is_accepted(name):
  plan = BlockPlan(8, 4, steps=2) if name == "one pass" else PLAN
  # One program for rows with the constraint and for rows without it, which show what it does; and
  # for rows with a temperature and greedy ones.
  rows = 8 * len(PROMPTS)
  constraints = ([WORDS] * rows + [None] * rows) * 2
  both = Sampling(temperature=[1.0] * 2 * rows + [0.0] * 2 * rows, top_p=0.9)
  found = rows_of(
    constraints, prompts=PROMPTS * 32, plan=plan, policy=POLICIES[name], sampling=both
  )
  for first in (0, 2 * rows):
    assert all(map(accepted, found[first : first + rows]))
    assert not all(map(accepted, found[first + rows : first + 2 * rows]))


def test_rows_without_a_constraint_and_their_neighbours_are_as_before():
  free, bound = rows_of(None), rows_of(WORDS)
  mixed = rows_of([WORDS, None] * 16)
  assert mixed[1::2] == free[1::2] and mixed[::2] == bound[::2]


def test_blocks_that_are_longer_than_the_text():
  """The last block of a block-causal network may end behind the text, which is whole before it."""
  found = rows_of(WORDS, network=BLOCKS)
  assert all(map(accepted, found)) and max(map(len, found)) == PLAN.length


def test_prompts_and_constraints_of_similar_size_compile_nothing():
  rows_of(WORDS)
  before = run.whole._cache_size()
  rows_of(dfa_of([{1: 1}, {4: 2, 5: 1}, {6: 0}], {1}, V))
  assert run.whole._cache_size() == before


def texts_of(length):
  """Returns the accepted texts with their end tokens, by following the automaton."""
  out, found = [((), 0)], []
  while out:
    text, state = out.pop()
    if WORDS.accepting[state]:
      found.append((*text, *[EOS] * (length - len(text))))
    for token in range(V) if len(text) < length else ():
      after = int(WORDS.next[state, WORDS.class_of_token[token]])
      if after >= 0:
        out.append(((*text, token), after))
  return sorted(set(found))


def test_a_trace_has_the_probabilities_that_tokens_were_sampled_by():
  """Those of the model over what can be completed, given what is written to the left.

  In every pass each position alone may be restricted more than that, or less.
  """
  plan, warm = BlockPlan(8, 8, steps=2), Sampling(temperature=1.0)
  policy = DecidingPolicy(RandomPositions(), LladaCounts())
  out = denoise(
    WHOLE, PARAMS, PROMPTS, plan=plan, policy=policy, sampling=warm, eos=[EOS], key=3,
    constraint=WORDS, trace=True,
  )  # fmt: skip
  texts, passes = np.array(texts_of(8)), out.trace.passes
  begin = len(PROMPTS[0])
  log_p = np.asarray(jax.nn.log_softmax(logits_of(jnp.asarray(passes.canvas[:, 0, : begin + 8]))))
  alone = 0.0
  for number in range(out.trace.num_passes):
    canvas = passes.canvas[number, 0, begin : begin + 8].copy()
    before = canvas.copy()
    for place in np.flatnonzero(passes.revision.written[number, 0]):
      token, expected = int(passes.token[number, 0, place]), []
      for known in (canvas, before):
        fits = texts[((texts == known) | (known == MASK)).all(axis=1)]
        p = log_p[number, begin + place][np.unique(fits[:, place])]
        expected.append(log_p[number, begin + place, token] - np.logaddexp.reduce(p))
      assert passes.log_prob[number, 0, place] == pytest.approx(expected[0], abs=1e-5)
      alone = max(alone, abs(expected[0] - expected[1]))
      canvas[place] = token
  assert alone > 1e-2, "the control: each position by itself has other probabilities"
  again = replay(WHOLE, PARAMS, out.trace)
  np.testing.assert_allclose(again, passes.log_prob, atol=1e-6)


@pytest.mark.parametrize(
  ("constraint", "changed", "message"),
  [
    (WORDS, dict(plan=BlockPlan(1, 1, 1)), "the shortest text that its constraint accepts has 2"),
    (WORDS, dict(eos=()), "give eos"),
    (dfa_of([{MASK: 1}, {}], {1}, V), {}, "no text satisfies the constraint"),
    (WORDS, dict(sampling=Sampling(logit_bias={4: -np.inf})), r"bans the tokens \[4\]"),
    ([WORDS], {}, "1 values for a batch of 32"),
    # Nothing is said of the automaton, which without an end token has no tables.
    (WORDS, dict(is_target=EVERY, eos=()), "leave is_target out"),
  ],
)
def test_what_cannot_be_is_refused(constraint, changed, message):
  with pytest.raises(ValueError, match=message):
    rows_of(constraint, **changed)
