"""Exact caches where entries predict the next position, and shadow entries over caches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.bench.diffusion import caches as bench
from mtjax.bench.diffusion.counted import CountedModel
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise, denoise_by_blocks
from mtjax.diffusion.denoising.caches import BlockStale, ExactBlocks, Uncached
from mtjax.diffusion.denoising.machines import BlockBuffer, TokenMerge
from mtjax.diffusion.denoising.machines.in_flight import BlocksInFlight
from mtjax.diffusion.denoising.machines.passes import WholeCanvas
from mtjax.diffusion.order import MaxProbability, SampledProbability
from mtjax.diffusion.revise import EditTokens, Wino
from mtjax.diffusion.rule import rule
from mtjax.diffusion.transfer import Threshold, WinoDraft
from mtjax.frontier import as_dense
from mtjax.models import Model, uniform_layers
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import BLOCKS, CONFIG, MASK, PARAMS

SHIFTED = dataclasses.replace(BLOCKS, shifted=True)
# The first block begins at position 0, at 4 within a prompt, and at 4 behind one.
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 1], [2, 9, 1, 4]]
EDITS = DecidingPolicy(MaxProbability(), Threshold(0.3), EditTokens(0.2, 2))
WINO = DecidingPolicy(SampledProbability(), WinoDraft(0.15), Wino(0.9))
SAMPLED = dict(sampling=Sampling(temperature=1.0), key=5, trace=True)


def run(network, cache, policy, params=PARAMS, prompts=PROMPTS, block=4, **settings):
  plan = BlockPlan(16 if block == 8 else 12, block, 16 if block == 8 else 12)
  return denoise(network, params, prompts, plan=plan, policy=policy, cache=cache, **settings)


def kinds(out):
  return {event.kind for row in range(len(out.tokens)) for event in out.trace.events(row)}


def assert_same(one, other, tolerance=1e-5):
  assert one.tokens == other.tokens and one.decided_at == other.decided_at
  assert one.passes.tolist() == other.passes.tolist()
  np.testing.assert_allclose(
    one.trace.passes.log_prob, other.trace.passes.log_prob, atol=tolerance, rtol=tolerance
  )


class NeverRenewed(ExactBlocks):
  """Negative control: the first position of every block gets what that of the first one got."""

  def logits(self, network, params, job, cache, now):
    logits, new = super().logits(network, params, job, cache, now)
    return new.__class__(cache.kv, cache.following).first(logits, now.window), new._replace(
      following=cache.following
    )


def test_a_shifted_network_over_finished_blocks_is_that_of_the_whole_canvas():
  whole = run(SHIFTED, Uncached(), EDITS, **SAMPLED)
  cached = run(SHIFTED, ExactBlocks(), EDITS, **SAMPLED)
  assert_same(whole, cached)
  assert "edited" in kinds(cached), "the case must have edits"
  wrong = run(SHIFTED, NeverRenewed(), EDITS, **SAMPLED)
  assert wrong.tokens != cached.tokens


def test_the_logits_of_every_pass_are_exact():
  way = bench.trajectory(SHIFTED, PARAMS, BlockPlan(8, 4, 8), prompt_length=4, batch=1)
  found = bench.divergence(SHIFTED, ExactBlocks(), PARAMS, way)
  assert found.difference < 1e-5 and found.changed == 0
  assert list(bench.policies(SHIFTED)) == ["none", "exact_blocks"]


def test_a_shifted_row_is_the_same_alone():
  keys = jax.random.split(jax.random.key(1), 3)
  settings = SAMPLED | dict(key=keys)
  together = run(SHIFTED, ExactBlocks(), EDITS, **settings)
  assert len(set(together.passes.tolist())) > 1
  settings = SAMPLED | dict(key=keys[1:2])
  alone = run(SHIFTED, ExactBlocks(), EDITS, prompts=PROMPTS[1:2], **settings)
  assert alone.tokens[0] == together.tokens[1]
  assert alone.decided_at[0] == together.decided_at[1]


def test_the_logits_of_a_first_position_cost_no_pass():
  model = CountedModel(SHIFTED.model.config)
  network = dataclasses.replace(SHIFTED, model=model)
  denoise(network, PARAMS, [[1, 2, 3, 4]], plan=BlockPlan(8, 4, 8), cache=ExactBlocks())
  jax.effects_barrier()
  # As without shifted logits: the prompt, and the finished block with the next one's first pass.
  assert model.tally.passes == 1 + 8
  assert model.tally.entries == 16 + 4 * 4 + (4 + 4) + 3 * 4


class LateCanvas(WholeCanvas):
  """Whole canvases, with blocks that leave one pass after they are final, as cached ones do."""

  def leaving(self, before, after):
    return before


@rule
class BufferOverWhole(BlockBuffer):
  def program(self, network, score, num_blocks):
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, LateCanvas())


@rule
class MergeOverWhole(TokenMerge):
  def program(self, network, score, num_blocks):
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, LateCanvas())


BUFFER = dict(in_flight=3, add=0.25, activate=0.5, threshold=0.45, edit=0.2, max_post_steps=2)


# Merged tokens are read with the probabilities of the pass before: rounding grows over the passes.
@pytest.mark.parametrize(
  "cached,whole,tolerance",
  [
    (BlockBuffer(**BUFFER), BufferOverWhole(**BUFFER), 1e-5),
    (TokenMerge(0.3, in_flight=2), MergeOverWhole(0.3, in_flight=2), 1e-4),
  ],
  ids=["block_buffer", "token_merge"],
)
def test_blocks_in_flight_of_a_shifted_network_are_those_of_the_whole_canvas(
  cached, whole, tolerance
):
  settings = dict(length=12, **SAMPLED)
  found = denoise_by_blocks(SHIFTED, PARAMS, PROMPTS, machine=cached, **settings)
  over_whole = denoise_by_blocks(SHIFTED, PARAMS, PROMPTS, machine=whole, **settings)
  assert_same(found, over_whole, tolerance)


@pytest.mark.parametrize("network", [BLOCKS, SHIFTED], ids=["aligned", "shifted"])
def test_wino_over_finished_blocks_is_wino_over_the_whole_canvas(network):
  network = dataclasses.replace(network, block_length=8)
  whole, cached = (
    run(network, cache, WINO, block=8, **SAMPLED) for cache in (Uncached(), ExactBlocks())
  )
  assert_same(whole, cached)
  assert "remasked" in kinds(cached), "the case must mask tokens again"


# In a network of one layer keys depend on nothing but their token: old ones are exact.
SHALLOW = Model(dataclasses.replace(CONFIG, layers=uniform_layers(1)))
SHALLOW_PARAMS = jax.tree.map(lambda x: 4 * x, SHALLOW.init(jax.random.key(0)))


@pytest.mark.parametrize(
  "shifted,suffix",
  [(False, False), (False, True), (True, False)],
  ids=["prefix", "dual", "shifted"],
)
def test_wino_over_old_keys_of_one_layer_is_wino_over_the_whole_canvas(shifted, suffix):
  network = MaskedNetwork(SHALLOW, MASK, shifted=shifted)
  runs = [
    run(network, cache, WINO, params=SHALLOW_PARAMS, block=8, **SAMPLED)
    for cache in (Uncached(), BlockStale(suffix=suffix))
  ]
  assert_same(*runs)
  assert "remasked" in kinds(runs[0]), "the case must mask tokens again"


@pytest.mark.parametrize("blocks", [0, 4], ids=["whole", "block_causal"])
def test_who_predicts_a_token_of_a_shifted_network_sees_all_but_that_token(blocks):
  network = MaskedNetwork(SHALLOW, MASK, shifted=True, block_length=blocks)
  index, size, end = np.arange(4, 8), 16, 12
  canvas = network.canvas(jnp.arange(size)[None] % 9, jnp.array([end]))
  frontier, rows = network.with_shadow(canvas, jnp.asarray(index)[None], jnp.ones((1, 4), bool))
  asked = np.asarray(rows[0])
  np.testing.assert_array_equal(asked, np.arange(size + 4, size + 8))
  # The entries before the block's: their tokens and positions, and not the masks'.
  np.testing.assert_array_equal(frontier.position[0, asked], index - 1)
  np.testing.assert_array_equal(frontier.token[0, asked], (index - 1) % 9)
  np.testing.assert_array_equal(frontier.token[0, size : size + 4], MASK)
  found = np.asarray(as_dense(frontier)[0])
  wanted = np.zeros((4, size + 8), bool)
  for row, source in enumerate(index - 1):
    wanted[row, :size] = found[source, :size]  # what the entry itself sees
    wanted[row, source + 1] = False
    wanted[row, size : size + 4] = not blocks or source // blocks == 1
  np.testing.assert_array_equal(found[asked], wanted)
  assert not found[:, asked].any() and not found[:size, size:].any()


def test_a_token_of_a_shifted_network_is_verified_without_itself():
  """Of one layer, where no other entry tells what the token is."""
  network = MaskedNetwork(SHALLOW, MASK, shifted=True)
  index = jnp.arange(4, 8)[None]

  @jax.jit
  def logits(token):
    canvas = network.canvas(token, jnp.array([12]))
    frontier, rows = network.with_shadow(canvas, index, jnp.ones((1, 4), bool))
    params = jax.tree.map(lambda x: x / 4, SHALLOW_PARAMS)  # attention that is not one-hot
    return SHALLOW.forward(params, frontier, None, rows).logits[0]

  token = jnp.arange(16)[None] % 9
  before = logits(token)
  for place in range(4):
    change = np.abs(logits(token.at[0, 4 + place].set(0)) - before).max(axis=1)
    assert change[place] == 0 and (np.delete(change, place) > 1e-4).all(), change
