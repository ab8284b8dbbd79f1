"""Self-speculation: the stepwise loop's trajectory, at any temperature, in fewer forward passes."""

import types

import jax
import jax.numpy as jnp
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, lookahead
from mtjax.diffusion.denoising.caches import BlockStale, ExactBlocks
from mtjax.diffusion.denoising.guidance import ClassifierFree
from mtjax.diffusion.order import Credit, MaxProbability, RandomPositions
from mtjax.diffusion.revise import EditTokens, RemdmCap
from mtjax.diffusion.transfer import Ancestral, LladaCounts, OneByOne, Threshold
from mtjax.sampling.logits import Sampling
from tests.constraints.toys import dfa_of
from tests.diffusion.tiny_masked import BLOCKS, PARAMS, PROMPTS, WHOLE, V

# Weights at which entries see little of each other: what a pass decides changes the others little.
CALM = jax.tree_util.tree_map_with_path(
  lambda path, x: x * 0.3 if "attention" in jax.tree_util.keystr(path) else x, PARAMS
)
PLAN = BlockPlan(8, 4, 8)
NOISY = Sampling(temperature=1.0)
RUNS = dict(
  greedy=dict(policy=DecidingPolicy(order=MaxProbability(), transfer=LladaCounts())),
  sampled=dict(policy=DecidingPolicy(order=RandomPositions(), transfer=OneByOne()), sampling=NOISY),
  edited_with_credit=dict(
    policy=DecidingPolicy(
      order=Credit(), transfer=Threshold(threshold=0.6), revise=EditTokens(threshold=0.5)
    ),
    guidance=ClassifierFree(scale=0.5),
  ),
  remasked=dict(
    policy=DecidingPolicy(order=RandomPositions(), transfer=Ancestral(), revise=RemdmCap(eta=0.3)),
    sampling=NOISY,
  ),
  constrained=dict(
    policy=DecidingPolicy(order=MaxProbability(), transfer=LladaCounts()),
    sampling=NOISY,
    constraint=[dfa_of([{1: 1}, {2: 0, 3: 1}], {0}, V), None],
    eos=[4],
  ),
)


@pytest.mark.parametrize("name", RUNS)
def test_the_trajectory_is_the_stepwise_one(name):
  settings = dict(plan=PLAN, key=2, **RUNS[name])
  plain = denoise(WHOLE, CALM, PROMPTS, **settings)
  ahead = denoise(WHOLE, CALM, PROMPTS, lookahead=3, **settings)
  assert ahead.tokens == plain.tokens
  assert ahead.decided_at == plain.decided_at
  assert ahead.passes.tolist() == plain.passes.tolist()
  assert ahead.counters["forwards"] <= plain.counters["forwards"]
  if name == "greedy":
    assert ahead.counters["forwards"] <= 0.75 * plain.counters["forwards"]


def test_a_network_whose_entries_do_not_see_each_other_is_drafted_without_a_miss():
  still = jax.tree_util.tree_map_with_path(
    lambda path, x: jnp.zeros_like(x) if "attention" in jax.tree_util.keystr(path) else x, PARAMS
  )
  plan = BlockPlan(8, 8, 8)
  ahead = denoise(WHOLE, still, PROMPTS, plan=plan, lookahead=3)
  assert ahead.tokens == denoise(WHOLE, still, PROMPTS, plan=plan).tokens
  # The first forward has no drafts that fit; then each makes 4 of the 7 passes that are left.
  assert ahead.counters["forwards"] == 2 * 3


def test_drafts_that_are_not_checked_change_the_text(monkeypatch):
  """Negative control: the tests above find a loop that takes every draft for true."""
  monkeypatch.setattr(lookahead, "same_canvas", lambda state, _: jnp.ones(state.passes.shape, bool))
  plain = denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN)
  # Two drafts: another program than those above, which are compiled already.
  assert denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN, lookahead=2).tokens != plain.tokens


def test_a_draft_is_true_if_canvas_and_block_are():
  """The pass after a block's last edit may see the canvas of the pass before, in the next block."""
  state = types.SimpleNamespace(
    token=jnp.array([[1, 2], [1, 2], [1, 2]]), block=jnp.array([0, 0, 0])
  )
  draft = types.SimpleNamespace(
    token=jnp.array([[1, 2], [1, 3], [1, 2]]), block=jnp.array([0, 0, 1])
  )
  assert lookahead.same_canvas(state, draft).tolist() == [True, False, False]


@pytest.mark.parametrize(
  "change,message",
  [
    (dict(lookahead=-1), "lookahead must be at least 0, got -1"),
    (dict(lookahead=1, cache=BlockStale()), "of which BlockStale has no keys: use Uncached"),
    (
      dict(lookahead=1, cache=ExactBlocks(), network=BLOCKS),
      "of which ExactBlocks has no keys: use Uncached",
    ),
  ],
)
def test_refusals(change, message):
  settings = dict(network=WHOLE, plan=PLAN) | change
  with pytest.raises(ValueError, match=message):
    denoise(settings.pop("network"), PARAMS, PROMPTS, **settings)
