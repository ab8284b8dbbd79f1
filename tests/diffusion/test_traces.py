"""Traces of the denoising loop: they tell its passes, and `replay` computes them again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, replay
from mtjax.diffusion.denoising.caches import BlockStale, Uncached
from mtjax.diffusion.denoising.guidance import ClassifierFree
from mtjax.diffusion.order import Credit, MaxProbability, RandomPositions, SampledProbability
from mtjax.diffusion.revise import EditTokens, RemdmCap, Wino
from mtjax.diffusion.traces.frames import trace_frames
from mtjax.diffusion.transfer import Ancestral, OneByOne, Threshold, WinoDraft
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import MASK, PARAMS, PROMPTS, WHOLE, logits_of

PLAN = BlockPlan(8, 4, 8)
THRESHOLD = DecidingPolicy(order=MaxProbability(), transfer=Threshold(threshold=0.4))
NOISY = Sampling(temperature=1.0)
RUNS = dict(
  edited=(
    dict(
      policy=DecidingPolicy(
        order=MaxProbability(), transfer=OneByOne(), revise=EditTokens(threshold=0.2)
      ),
      sampling=Sampling(temperature=0.7),
    ),
    {"decided", "edited"},
  ),
  remasked=(
    dict(
      policy=DecidingPolicy(
        order=RandomPositions(), transfer=Ancestral(), revise=RemdmCap(eta=0.4)
      ),
      sampling=NOISY,
    ),
    {"decided", "remasked"},
  ),
  verified=(
    dict(
      policy=DecidingPolicy(
        order=SampledProbability(), transfer=WinoDraft(threshold=0.15), revise=Wino()
      ),
      plan=BlockPlan(8, 8, 8),
      sampling=NOISY,
    ),
    {"decided", "remasked"},
  ),
  stale=(dict(policy=THRESHOLD, sampling=NOISY, cache=BlockStale()), {"decided"}),
  credited_guided_greedy=(
    dict(
      policy=DecidingPolicy(order=Credit(), transfer=OneByOne()),
      guidance=ClassifierFree(scale=0.5),
    ),
    {"decided"},
  ),
)


@pytest.fixture(scope="module", params=RUNS)
def traced(request):
  settings, kinds = RUNS[request.param]
  out = denoise(WHOLE, PARAMS, PROMPTS, key=3, trace=True, **dict(plan=PLAN) | settings)
  return settings, kinds, out


def test_replay_gives_the_samplers_log_probabilities(traced):
  _, kinds, out = traced
  events = [event for row in range(2) for event in out.trace.events(row)]
  assert {event.kind for event in events} == kinds
  assert len({event.log_prob for event in events}) > 4
  again = replay(WHOLE, PARAMS, out.trace)
  np.testing.assert_allclose(again, out.trace.passes.log_prob, atol=1e-6)


def test_events_lead_from_the_masks_to_the_text(traced):
  _, _, out = traced
  frames = list(trace_frames(out.trace, PROMPTS, PLAN.length))
  assert len(frames) == 1 + out.trace.num_passes and frames[0].tokens == [[None] * PLAN.length] * 2
  assert frames[-1].tokens == out.tokens and frames[-1].decided_at == out.decided_at
  for row, prompt in enumerate(PROMPTS):
    canvas = np.array([*prompt, *[MASK] * PLAN.length])
    decided_at = np.zeros(len(canvas), int)
    events = out.trace.events(row)
    for number in range(1, out.passes[row] + 1):
      seen = out.trace.passes.canvas[number - 1, row, : len(canvas)]
      np.testing.assert_array_equal(seen, canvas)
      for event in (event for event in events if event.number == number):
        was_mask, here = canvas[event.position] == MASK, event.position
        assert was_mask == (event.kind == "decided") and event.position >= len(prompt)
        assert event.kind != "remasked" or event.token == canvas[here]
        canvas[here] = MASK if event.kind == "remasked" else event.token
        decided_at[here] = 0 if event.kind == "remasked" else number
    assert canvas[len(prompt) :].tolist() == out.tokens[row]
    assert decided_at[len(prompt) :].tolist() == out.decided_at[row]
    assert max(event.number for event in events) <= out.passes[row]


def test_log_probabilities_are_those_of_the_canvas_that_was_seen(traced):
  settings, _, out = traced
  if settings.get("cache") or settings.get("guidance"):
    pytest.skip("its distributions are not those of one pass over the canvas")
  logits = logits_of(jnp.asarray(out.trace.passes.canvas[:, 1, :14]))
  log_p = jax.nn.log_softmax(logits / settings["sampling"].temperature)
  for event in out.trace.events(1):
    if event.kind != "remasked":
      wanted = log_p[event.number - 1, event.position, event.token]
      assert event.log_prob == pytest.approx(float(wanted), abs=1e-5)


def test_a_trace_is_of_the_same_run_and_compiles_nothing_into_it():
  settings = dict(plan=PLAN, policy=THRESHOLD, sampling=NOISY, key=3, cache=BlockStale())
  plain = denoise(WHOLE, PARAMS, PROMPTS, **settings)
  before = run.whole._cache_size()
  traced = denoise(WHOLE, PARAMS, PROMPTS, trace=True, **settings)
  again = denoise(WHOLE, PARAMS, PROMPTS, **settings)
  assert run.whole._cache_size() == before and plain.trace is None
  assert plain.tokens == traced.tokens == again.tokens
  assert plain.decided_at == traced.decided_at
  # Negative control: with fresh keys the stale run's probabilities are others.
  fresh = replay(WHOLE, PARAMS, traced.trace, cache=Uncached())
  assert np.abs(fresh - traced.trace.passes.log_prob).max() > 1e-3


@pytest.fixture(scope="module")
def sampled():
  policy = DecidingPolicy(order=RandomPositions(), transfer=OneByOne())
  settings = dict(plan=BlockPlan(4, 4, 4), policy=policy, sampling=Sampling(temperature=0.8))
  return denoise(WHOLE, PARAMS, PROMPTS, key=1, trace=True, **settings).trace


def test_the_gradient_of_replay_is_that_of_the_log_probability(sampled):
  keys = jax.random.split(jax.random.key(7), len(jax.tree.leaves(PARAMS)))
  keys = jax.tree.unflatten(jax.tree.structure(PARAMS), list(keys))
  along = jax.tree.map(lambda key, x: jax.random.normal(key, x.shape) * 0.1 * x, keys, PARAMS)

  @jax.jit
  def total(params):
    return jnp.sum(replay(WHOLE, params, sampled))

  def moved(size):
    return float(total(jax.tree.map(lambda x, d: x + size * d, PARAMS, along)))

  gradient = jax.grad(total)(PARAMS)
  slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, along)), strict=True))
  assert abs(slope) > 0.1
  assert float(slope) == pytest.approx((moved(1e-3) - moved(-1e-3)) / 2e-3, rel=3e-2)


def test_a_longer_trace_has_passes_that_decide_nothing(sampled):
  longer = sampled.padded(7)
  assert longer.num_passes == 7 and longer.events(0) == sampled.events(0)
  values = replay(WHOLE, PARAMS, longer)
  np.testing.assert_allclose(values[:4], sampled.passes.log_prob, atol=1e-6)
  assert not np.any(values[4:])
  with pytest.raises(ValueError, match="the trace has 4 passes: it cannot be cut to 3"):
    sampled.padded(3)


def test_another_token_has_another_probability(sampled):
  """Negative control: replay reads the trace's tokens, and not what it would sample itself."""
  other = sampled.passes.replace(token=(sampled.passes.token + 1) % MASK)
  found = replay(WHOLE, PARAMS, sampled.replace(passes=other))
  assert np.abs(found - sampled.passes.log_prob).max() > 0.1


def test_a_trace_needs_one_pass_per_forward():
  with pytest.raises(ValueError, match="a trace needs lookahead 0"):
    denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN, trace=True, lookahead=2)
