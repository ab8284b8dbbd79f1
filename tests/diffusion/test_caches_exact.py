"""The exact caches: any order, finished blocks; and the benchmark of all caches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.bench.diffusion import caches as bench
from mtjax.bench.diffusion.counted import CountedModel
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from mtjax.diffusion.denoising.caches import (
  AnyOrder,
  BlockStale,
  Delayed,
  ExactBlocks,
  Uncached,
  Vicinity,
)
from mtjax.diffusion.order.max_probability import MaxProbability
from mtjax.diffusion.revise.edit import EditTokens
from mtjax.diffusion.transfer.threshold import Threshold
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.types import FOREVER

QUERY, PROMPT = 10, 5
ANY = TransformerConfig(
  vocab_size=10,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=32,
  layers=uniform_layers(2),
  max_position=64,
  predicts="any_subset",
  extra_embeddings=1,
  extra_names=("query",),
)
NETWORK = MaskedNetwork(Model(ANY), QUERY)
PARAMS = jax.tree.map(lambda x: 2 * x, NETWORK.model.init(jax.random.key(0)))
MASKED = MaskedNetwork(Model(dataclasses.replace(ANY, predicts="masked")), QUERY)
BLOCKS = dataclasses.replace(MASKED, block_length=4)
PLAN = BlockPlan(8, 4, 4)  # two tokens per pass


def any_network(rows, sink=False):
  """Returns a network whose entries see each other in one of the ways, with or without a sink."""
  more = dict(extra_embeddings=2, extra_names=("query", "sink")) if sink else {}
  return MaskedNetwork(Model(dataclasses.replace(ANY, any_subset_rows=rows, **more)), QUERY)


def at_once(network, token, order, begin, params):
  """Returns the logits of a block's masks, all entries computed at once in an order of decisions.

  `order` lists the decided positions behind the prompt, the first decided first.
  """
  config = network.model.config
  sinks = config.extra_embeddings - 1
  places = [*range(PROMPT), *order]
  context = [0] * PROMPT if config.any_subset_rows == "two_stream" else list(range(PROMPT))
  rank = [0] * sinks + context + [PROMPT + i for i in range(len(order))]
  tokens = [QUERY + 1] * sinks + token[places].tolist()
  at = [*range(sinks), *(sinks + place for place in places)]
  masks = [at for at in range(begin, begin + 4) if at not in order]
  # Of one size, however many are decided: one program.
  known = (jnp.asarray(np.resize(x, (1, sinks + PROMPT + 8))) for x in (tokens, at, rank))
  logits = _at_once(
    network, params, *known, len(at), np.resize(masks, (1, 4)), PROMPT + 1 + len(order)
  )
  return np.asarray(logits)[: len(masks)], np.array(masks) - begin


@functools.partial(jax.jit, static_argnums=0)
def _at_once(network, params, tokens, at, rank, count, masks, last):
  """Returns logits [4, V] of masks that see the first `count` known entries."""
  config = network.model.config
  rows, sinks = config.any_subset_rows, config.extra_embeddings - 1
  known = frontier_lib.content(
    tokens, at, rank if rows == "two_stream" else rank + (at > 0),
    valid=jnp.arange(at.shape[1])[None] < count,
  )  # fmt: skip
  queries = frontier_lib.query(
    jnp.full_like(masks, QUERY), masks + sinks, jnp.full_like(masks, last)
  )
  if rows != "two_stream":
    queries = queries.replace(own=jnp.ones_like(masks, bool))
  if rows == "eso":
    stamp = queries.stamp + jnp.arange(masks.shape[1])
    queries = queries.replace(stamp=stamp, lo=stamp, hi=jnp.full_like(stamp, FOREVER))
  output = network.model.forward(params, frontier_lib.concatenate(known, queries))
  return output.logits[0, known.size :]


@pytest.mark.parametrize(
  ("rows", "sink"),
  [("two_stream", False), ("set_diffusion", False), ("eso", False), ("two_stream", True)],
)
def test_any_order_is_all_at_once_in_the_order_of_decisions(rows, sink):
  network, cache = any_network(rows, sink), AnyOrder()
  params = jax.tree.map(lambda x: 2 * x, network.model.init(jax.random.key(0)))
  way = bench.trajectory(network, params, PLAN, prompt_length=PROMPT, batch=2, cache=cache)
  logits = jax.jit(lambda params: bench.logits_along(network, cache, params, way))(params)
  tokens = np.asarray(way.passes.token)
  differ = []
  for row in range(2):
    order: list[int] = []
    for number in range(4):
      token, new = tokens[number, row], []
      for at in range(PROMPT, PROMPT + 8):
        if token[at] != QUERY and at not in order:
          new.append(at)
      order += new
      begin = PROMPT + 4 * (number // 2)
      want, places = at_once(network, token, order, begin, params)
      assert np.allclose(logits[number, row, places], want, atol=2e-5)
      other, _ = at_once(network, token, order[::-1], begin, params)
      differ.append(not np.allclose(other, want, atol=1e-3))
  assert len(order) == 6 and any(differ)


def test_any_order_has_no_pass_and_no_entry_of_its_own():
  way = bench.trajectory(NETWORK, PARAMS, PLAN, prompt_length=PROMPT, batch=1, cache=AnyOrder())
  # The prompt in one pass of 16 entries, then at most 4 new tokens beside 4 masks in each.
  assert bench.counted(NETWORK, AnyOrder(), PARAMS, way) == (5 / 4, (16 + 4 * 8) / 4)


@pytest.mark.parametrize("network,cache", [(NETWORK, AnyOrder()), (BLOCKS, ExactBlocks())])
def test_a_row_is_the_same_alone_and_among_rows_at_other_passes(network, cache):
  prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 1], [2, 9]]
  policy = DecidingPolicy(order=MaxProbability(), transfer=Threshold(threshold=0.2))
  settings = dict(plan=BlockPlan(8, 4, 8), policy=policy, cache=cache)
  together = denoise(network, PARAMS, prompts, **settings)
  assert len(set(together.passes.tolist())) > 1
  for row, prompt in enumerate(prompts):
    alone = denoise(network, PARAMS, [prompt], **settings)
    assert alone.tokens[0] == together.tokens[row]
    assert alone.decided_at[0] == together.decided_at[row]


def test_no_pass_is_spent_on_the_keys_of_a_finished_block():
  tally = {}
  for cache in (Uncached(), ExactBlocks()):
    model = CountedModel(BLOCKS.model.config)
    network = dataclasses.replace(BLOCKS, model=model)
    denoise(network, PARAMS, [[1, 2, 3, 4]], plan=BlockPlan(8, 4, 8), cache=cache)
    jax.effects_barrier()
    tally[type(cache)] = model.tally
  assert tally[Uncached].passes == 8 and tally[Uncached].entries == 8 * 16
  # One pass reads the prompt. The first of the second block has the finished block, too.
  assert tally[ExactBlocks].passes == 1 + 8
  assert tally[ExactBlocks].entries == 16 + 4 * 4 + (4 + 4) + 3 * 4


def test_every_policy_is_measured_beside_no_cache():
  said: list[str] = []
  policies = {"none": Uncached(), "exact_blocks": ExactBlocks()}
  none, exact = bench.measure(
    BLOCKS, PARAMS, policies, PLAN, prompt_length=4, batches=[1], rounds=2, progress=said.append
  )
  assert none.ratio == {1: 1.0} and none.entries == 16 and none.stops_paying is None
  assert none.divergence == (0, 0, 0)
  assert abs(exact.divergence.kl) < 1e-6 and exact.divergence.difference < 1e-4
  assert exact.seconds[1] > 0 and exact.stops_paying in (1, None)
  assert said[-3:] == ["batch 1: round 2 of 2", "comparing none", "comparing exact_blocks"]
  assert list(bench.policies(BLOCKS)) == list(policies)
  assert "dual" in bench.policies(MASKED)
  assert "dual" not in bench.policies(dataclasses.replace(MASKED, shifted=True))


@pytest.mark.parametrize(
  "build,message",
  [
    (
      lambda: AnyOrder().check(dataclasses.replace(NETWORK, mask_id=3)),
      "mask_id must be the id of its query embedding, got 3",
    ),
    (
      lambda: denoise(
        any_network("two_stream", True), PARAMS, [[1] * 56], plan=PLAN, cache=AnyOrder()
      ),
      "a canvas of 64 entries, 56 of them its prompt, and the model has 63 positions",
    ),
    (lambda: AnyOrder().check(MASKED), "for any-subset models, .* predicts 'masked'"),
    (
      lambda: AnyOrder().check(dataclasses.replace(NETWORK, shifted=True)),
      "block_length must be 0 and shifted False",
    ),
    (
      lambda: denoise(
        NETWORK,
        PARAMS,
        [[1, 2]],
        plan=PLAN,
        cache=AnyOrder(),
        policy=DecidingPolicy(MaxProbability(), Threshold(), EditTokens()),
      ),
      "EditTokens changes decided tokens, whose keys AnyOrder has committed",
    ),
    (
      lambda: denoise(
        NETWORK, PARAMS, [[1, 2, 3]], is_target=[[0, 1, 0]], plan=PLAN, cache=AnyOrder()
      ),
      "fill blanks with the method 'set'",
    ),
    *(
      (lambda c=c: c.check(NETWORK), "AnyOrder")
      for c in (Uncached(), BlockStale(), Delayed(), Vicinity())
    ),
    (
      lambda: bench.measure(MASKED, PARAMS, {}, PLAN, prompt_length=4, batches=[1]),
      "the first policy must be 'none'",
    ),
    (
      lambda: bench.trajectory(BLOCKS, PARAMS, PLAN, prompt_length=3, batch=1),
      "prompts must be whole blocks of 4 positions, got a prompt_length of 3",
    ),
  ],
)
def test_refusals(build, message):
  with pytest.raises(ValueError, match=message):
    build()
