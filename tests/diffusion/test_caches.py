"""The approximate caches: exact where nothing is old, as their rules say where something is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.bench.diffusion.caches import Trajectory, counted, logits_along, trajectory
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from mtjax.diffusion.denoising.caches import (
  BlockStale,
  Delayed,
  Elastic,
  SimilarityRefreshed,
  Uncached,
  Vicinity,
)
from mtjax.diffusion.order.max_probability import MaxProbability
from mtjax.diffusion.transfer.threshold import Threshold
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.models.access import LayerAccess
from tests.compiled import forward

MASK, LENGTH, PROMPT = 10, 8, 6


def network_with(layers: int, **settings) -> MaskedNetwork:
  config = TransformerConfig(
    vocab_size=11,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=32,
    layers=uniform_layers(layers),
    max_position=64,
    predicts="masked",
  )
  return MaskedNetwork(Model(config), MASK, **settings)


@functools.cache
def params_of(network: MaskedNetwork):
  # Larger weights than those of initialisation, so that logits depend on other entries; but not
  # larger scores, because one key would then get all attention.
  def scaled(path, x):
    return x if "qkv" in jax.tree_util.keystr(path) else 3 * x

  return jax.tree_util.tree_map_with_path(scaled, network.model.init(jax.random.key(0)))


ALIGNED, SHIFTED = network_with(2), network_with(2, shifted=True)
PARAMS = params_of(ALIGNED)
SCANNED = Model(dataclasses.replace(ALIGNED.model.config, layer_loop="scanned"))
TWO_BLOCKS, ONE_BLOCK = BlockPlan(LENGTH, 4, 8), BlockPlan(LENGTH, LENGTH, 8)
WHOLE_PASSES = BlockPlan(LENGTH, 4, 2)  # each pass begins a block


@functools.cache
def way_of(network: MaskedNetwork, plan: BlockPlan) -> Trajectory:
  return trajectory(network, params_of(network), plan, prompt_length=PROMPT, batch=2)


# One program for all canvases of a shape: the way is an argument, not a constant of it.
along = jax.jit(logits_along, static_argnums=(0, 1))
masked_positions = jax.jit(jax.vmap(lambda now: now.window.read(now.token) == MASK))


def masked_logits(network, cache, way: Trajectory):
  """Returns the logits of each pass at masked positions, and -inf elsewhere."""
  logits = along(network, cache, params_of(network), way)
  return np.where(masked_positions(way.passes)[..., None], logits, -np.inf)


def close(a, b):
  return np.allclose(a, b, atol=2e-5)


@functools.partial(jax.jit, static_argnums=1)
def as_ever(way: Trajectory, number: int) -> Trajectory:
  """Returns passes that all see the canvas of pass `number`."""
  passes = jax.tree.map(lambda x: jnp.stack([x[number]] * len(x)), way.passes)
  return way._replace(passes=passes._replace(fresh=jnp.zeros_like(passes.fresh).at[0].set(True)))


REFRESHED = [
  (Delayed(every=1), TWO_BLOCKS),
  (Vicinity(1, 1, warm_up=0, every=1), TWO_BLOCKS),
  (Vicinity(1, 1, warm_up=7), TWO_BLOCKS),
  (SimilarityRefreshed(1, 1), TWO_BLOCKS),
  (Elastic(), WHOLE_PASSES),
  (Vicinity(1, 1, warm_up=0), WHOLE_PASSES),
]


# What a cache does with shifted logits does not depend on its settings: the stale passes below have
# exact ones among them.
@pytest.mark.parametrize(
  "network,cache,plan",
  [
    *(pytest.param(ALIGNED, *case, id=f"aligned-{i}") for i, case in enumerate(REFRESHED)),
    *(
      pytest.param(SHIFTED, *case, id=f"shifted-{i}", marks=() if i == 4 else (pytest.mark.slow,))
      for i, case in enumerate(REFRESHED)
    ),
  ],
)
def test_refreshed_at_every_pass_it_is_no_cache(network, cache, plan):
  way = way_of(network, plan)
  assert close(masked_logits(network, cache, way), masked_logits(network, Uncached(), way))


STALE = [
  Delayed(every=8, shares=(0.25, 1.0)),
  Vicinity(1, 1, warm_up=0),
  SimilarityRefreshed(16, 8, share=0.25),
  Elastic(threshold=1e-6),
]


@pytest.mark.parametrize("cache", STALE, ids=lambda cache: type(cache).__name__)
@pytest.mark.parametrize("network", [ALIGNED, SHIFTED], ids=["aligned", "shifted"])
def test_stale_passes_differ_on_new_canvases_and_only_there(network, cache):
  way = way_of(network, TWO_BLOCKS)
  exact = masked_logits(network, Uncached(), way)
  logits = masked_logits(network, cache, way)
  assert close(logits[0], exact[0]) and not close(logits, exact)
  # Keys of a canvas that stays as it is are not old.
  same = as_ever(way, 2)
  assert close(masked_logits(network, cache, same), masked_logits(network, Uncached(), same))


def test_no_vicinity_is_the_dual_cache():
  way = way_of(ALIGNED, TWO_BLOCKS)
  alone = masked_logits(ALIGNED, Vicinity(0, 0, warm_up=0), way)
  assert close(alone, masked_logits(ALIGNED, BlockStale(suffix=True), way))


OLD_PROMPTS = SimilarityRefreshed(8, 1), SimilarityRefreshed(8, 8, share=1.0)


@pytest.mark.parametrize(
  "network,cache",
  [
    pytest.param(ALIGNED, OLD_PROMPTS[0], id="aligned-passes"),
    pytest.param(ALIGNED, OLD_PROMPTS[1], id="aligned-share"),
    pytest.param(SHIFTED, OLD_PROMPTS[0], id="shifted-passes", marks=pytest.mark.slow),
    pytest.param(SHIFTED, OLD_PROMPTS[1], id="shifted-share"),
  ],
)
def test_a_response_computed_whole_over_old_prompts_is_the_prefix_cache_of_one_block(
  network, cache
):
  way = way_of(network, ONE_BLOCK)
  assert close(masked_logits(network, cache, way), masked_logits(network, BlockStale(), way))


def test_a_decided_token_is_computed_once_more_and_kept_from_there():
  way = way_of(ALIGNED, ONE_BLOCK)
  canvas = way.passes.token[:3, :1]
  model, position = ALIGNED.model, jnp.arange(canvas.shape[2])[None]
  decided = [int(np.flatnonzero(canvas[i, 0] != canvas[i + 1, 0])[0]) for i in range(2)]

  def computed(token, places, cache):
    entries = frontier_lib.bidirectional(token[:, places])
    return forward(model, PARAMS, entries.replace(position=position[:, places]), cache)

  end = PROMPT + LENGTH
  prompt, response = np.arange(PROMPT), np.arange(PROMPT, end)
  kept = model.allocate(1, 16)
  first = computed(canvas[0], np.arange(end), None)
  commit = jax.jit(type(kept).commit)
  kept = commit(kept, first.kv, position, jnp.asarray(prompt)[None], jnp.array([PROMPT]))
  second = computed(canvas[1], response, kept)
  place = jnp.array([[decided[0] - PROMPT]])
  kept = commit(kept, second.kv, position[:, response], place, jnp.array([1]))
  rest = np.setdiff1d(response, decided[:1])
  third = computed(canvas[2], rest, kept)
  want = np.full((3, LENGTH, 11), -np.inf)
  masks = [response, np.setdiff1d(response, decided[:1]), np.setdiff1d(response, decided)]
  for number, (places, output) in enumerate([(response, second), (rest, third)], 1):
    for at, logits in zip(places, output.logits[0], strict=True):
      if at in masks[number]:
        want[number, at - PROMPT] = logits.at[MASK].set(-jnp.inf)
  got = masked_logits(ALIGNED, Delayed(every=8, shares=(1.0,)), way)[:3, 0]
  assert close(got[1:], want[1:])


def test_values_say_which_entry_changed():
  network = network_with(1)
  params, way = params_of(network), way_of(network, ONE_BLOCK)
  # In one layer only the entry with a new token has another value, and one entry is computed.
  one = SimilarityRefreshed(8, 8, share=1e-3)
  exact, logits = (np.asarray(along(network, c, params, way)[1]) for c in (Uncached(), one))
  changed = np.asarray(way.passes.token[0] != way.passes.token[1])[:, PROMPT : PROMPT + LENGTH]
  assert changed.sum(axis=1).tolist() == [1, 1]
  assert close(logits[changed], exact[changed])
  assert not close(logits[~changed], exact[~changed])


def test_layers_above_a_drift_are_computed_from_kept_inputs():
  network, cache = network_with(3), Elastic(threshold=1.0)
  params, way = params_of(network), way_of(network, TWO_BLOCKS)
  first, second = (jax.tree.map(lambda x, i=i: x[i], way.passes) for i in range(2))

  @functools.partial(jax.jit, static_argnums=0)
  def at_pass(cache, state, now):
    return cache.logits(network, params, way.job, state, now)

  start = jax.jit(lambda: cache.start(network, params, way.job))()
  _, state = at_pass(cache, start, first)
  got, _ = at_pass(cache, state, second)

  @functools.partial(jax.jit, static_argnums=0)
  def layer(number, token, x=None):
    canvas = network.canvas(token, way.job.end)
    return network.model.segment(params, canvas, first=number, last=number + 1, hidden=x)

  place = np.arange(way.job.size)
  computed = (place >= PROMPT) & (place < PROMPT + 4)
  computed = computed | (np.asarray(state.tracked)[..., None] == place).any(0)
  old, new = (layer(0, now.token)[1] for now in (first, second))
  _, middle = layer(1, second.token, jnp.where(computed[..., None], new, old))
  logits = jax.jit(lambda output: network.logits(output))
  want = logits(layer(2, second.token, middle)[0])[:, PROMPT : PROMPT + 4]
  assert close(got, want)
  never, _ = at_pass(Elastic(threshold=1e-6), state, second)
  assert not close(never, want)


def test_layers_can_be_read_one_by_one():
  access, token = LayerAccess.of(ALIGNED.model.config), jnp.array([[1, 2, 3, MASK]])
  canvas = frontier_lib.bidirectional(token)
  whole = forward(ALIGNED.model, PARAMS, canvas)
  x = access.embed(PARAMS, canvas)
  project = jax.jit(access.project, static_argnums=3)
  for number, kv in enumerate(whole.kv):
    read = project(PARAMS, x, canvas.position, number)
    assert close(read.k.swapaxes(1, 2), kv.k) and close(read.v.swapaxes(1, 2), kv.v)
    hidden = x if number else None
    segment = functools.partial(ALIGNED.model.segment, first=number, last=number + 1)
    _, x = jax.jit(segment)(PARAMS, canvas, hidden=hidden)
  assert close(access.logits(PARAMS, x), whole.logits)


@pytest.mark.parametrize("cache", STALE, ids=lambda cache: type(cache).__name__)
def test_a_row_is_the_same_alone_and_among_rows_at_other_passes(cache):
  prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 1], [2, 9]]
  policy = DecidingPolicy(order=MaxProbability(), transfer=Threshold(threshold=0.35))
  settings = dict(plan=TWO_BLOCKS, policy=policy, cache=cache)
  together = denoise(ALIGNED, PARAMS, prompts, **settings)
  assert len(set(together.passes.tolist())) > 1
  for row, prompt in enumerate(prompts):
    alone = denoise(ALIGNED, PARAMS, [prompt], **settings)
    assert alone.tokens[0] == together.tokens[row]
    assert alone.decided_at[0] == together.decided_at[row]


@pytest.mark.parametrize(
  "cache,entries",
  [
    # Canvases have 32 entries; two of the eight passes begin a block of 4.
    (Vicinity(1, 2, warm_up=0), 2 * 32 + 6 * 7),
    (Vicinity(1, 2, warm_up=1, every=2), 5 * 32 + 3 * 7),
    # After the first pass 8 masks and new tokens, then 7, 6, 5, 4, 3, 2: a share holds 8, or 4.
    (Delayed(every=8, shares=(0.125, 0.25)), 32 + 4 * 8 + 3 * 4),
    (Delayed(every=8, shares=(0.125,)), 5 * 32 + 3 * 4),
    # The response has 16 entries, 8 of them padding.
    (SimilarityRefreshed(8, 4, share=0.25), 32 + 16 + 6 * 4),
    (Elastic(threshold=1e-6), 2 * 32 + 6 * (4 + 2)),
  ],
  ids=repr,
)
def test_entries_are_counted(cache, entries):
  way = trajectory(ALIGNED, PARAMS, TWO_BLOCKS, prompt_length=20, batch=1)
  assert counted(ALIGNED, cache, PARAMS, way) == (1.0, entries / 8)


@pytest.mark.parametrize(
  "build,message",
  [
    (lambda: Delayed(every=0), "every must be an integer of at least 1, got 0"),
    (lambda: Delayed(shares=()), "shares must be a tuple of at least one number"),
    (lambda: Delayed(shares=(0.5, 0.25)), "shares must be ascending"),
    (lambda: Delayed(shares=(1.5,)), "must be above 0 and at most 1, got 1.5"),
    (lambda: Vicinity(before=-1), "before must be an integer of at least 0, got -1"),
    (lambda: Vicinity(every=True), "every must be an integer of at least 1, got True"),
    (lambda: SimilarityRefreshed(12, 8), "prompt_every must be a multiple of response_every"),
    (lambda: SimilarityRefreshed(share=0.0), "share must be above 0"),
    (lambda: Elastic(threshold=1.5), "threshold must be above 0 and at most 1, got 1.5"),
    (lambda: Vicinity(before=0).check(SHIFTED), "before must be at least 1"),
    (lambda: Elastic().check(MaskedNetwork(SCANNED, MASK)), "use layer_loop 'unrolled'"),
    *((lambda c=c: c.check(network_with(1, block_length=4)), "use ExactBlocks") for c in STALE),
  ],
)
def test_refusals(build, message):
  with pytest.raises(ValueError, match=message):
    build()
