"""The denoising loop against LLaDA's published one, its caches, rows on their own, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise, stream
from mtjax.diffusion.denoising.caches import BlockStale, ExactBlocks
from mtjax.diffusion.order.max_probability import MaxProbability
from mtjax.diffusion.transfer.threshold import Threshold
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling

V, MASK = 11, 10  # the mask is an id of the vocabulary, as in LLaDA
CONFIG = TransformerConfig(
  vocab_size=V,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=32,
  layers=uniform_layers(2),
  max_position=64,
  predicts="masked",
)
MODEL = Model(CONFIG)
# Larger weights than those of initialisation, so that tokens differ.
PARAMS = jax.tree.map(lambda x: 3 * x, MODEL.init(jax.random.key(0)))
# No choice of the published loop is nearer than 1e-4 with these: processors round differently.
CLEAR = jax.tree.map(lambda x: 2 * x, MODEL.init(jax.random.key(9)))
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 1], [2, 9]]
WHOLE = MaskedNetwork(MODEL, MASK)
BLOCKS = MaskedNetwork(MODEL, MASK, block_length=4)
SHIFTED = MaskedNetwork(MODEL, MASK, shifted=True)
PLAN = BlockPlan(8, 4, 8)
NOISY = Sampling(temperature=1.0)


# What generate.py of github.com/ML-GSAI/LLaDA (commit b7e6c35, in PyTorch, temperature 0) writes
# with this network, whose logits of the mask were set to -1e9: by block and steps, per prompt.
WRITTEN = {
  (8, 8): ["99111199", "11130111", "11110111"],
  (8, 3): ["99111119", "11110111", "11911101"],
  (4, 8): ["11111194", "11110911", "11110111"],
  (4, 6): ["11111194", "11110911", "11111111"],
  (2, 4): ["11111194", "11110991", "11111111"],
}


@jax.jit
def logits_of(token):
  return MODEL.forward(CLEAR, frontier_lib.bidirectional(token)).logits


def published(prompt, plan: BlockPlan, shifted: bool):
  """Returns the canvas of `generate` of ML-GSAI/LLaDA (generate.py) at temperature 0, in numpy.

  Other than there, the mask has no probability. Shifted: with Dream's shift of logits.
  """
  x = np.array([*prompt, *[MASK] * plan.length])
  for block in range(plan.num_blocks):
    begin = len(prompt) + block * plan.block_length
    end = begin + plan.block_length
    left = int(np.sum(x[begin:end] == MASK))
    steps = plan.steps_per_block
    for step in range(steps):
      logits = np.array(logits_of(jnp.asarray(x)[None])[0])
      if shifted:
        logits = np.concatenate([logits[:1], logits[:-1]])
      logits[:, MASK] = -np.inf
      best = logits.argmax(-1)
      top = np.exp(logits - logits.max(-1, keepdims=True))
      confidence = top.max(-1) / top.sum(-1)
      confidence[(x != MASK) | (np.arange(len(x)) >= end)] = -np.inf
      count = left // steps + (step < left % steps)
      chosen = np.argsort(-confidence, kind="stable")[:count]
      x[chosen] = best[chosen]
  return x[len(prompt) :].tolist()


@pytest.mark.parametrize("network", [WHOLE, SHIFTED], ids=["aligned", "shifted"])
@pytest.mark.parametrize("block,steps", WRITTEN)
def test_the_published_loop_of_llada_at_temperature_0(network, block, steps):
  plan = BlockPlan(8, block, steps)
  out = denoise(network, CLEAR, PROMPTS, plan=plan)
  expected = [published(prompt, plan, network.shifted) for prompt in PROMPTS]
  assert out.tokens == expected
  if not network.shifted:
    assert ["".join(map(str, row)) for row in expected] == WRITTEN[block, steps]
  assert out.passes.tolist() == [steps] * 3
  assert [max(row) for row in out.decided_at] == [steps] * 3


@pytest.mark.parametrize("network,cache", [(WHOLE, None), (BLOCKS, ExactBlocks())])
def test_a_row_is_the_same_alone_and_in_a_batch_of_other_lengths(network, cache):
  cached = {} if cache is None else dict(cache=cache)
  policy = DecidingPolicy(order=MaxProbability(), transfer=Threshold(threshold=0.3))
  keys = jax.random.split(jax.random.key(3), 3)
  settings = dict(plan=PLAN, policy=policy, sampling=NOISY, **cached)
  together = denoise(network, PARAMS, PROMPTS, key=keys, **settings)
  assert len(set(together.passes.tolist())) > 1
  for row, prompt in enumerate(PROMPTS):
    alone = denoise(network, PARAMS, [prompt], key=keys[row : row + 1], **settings)
    assert alone.tokens[0] == together.tokens[row]
    assert alone.decided_at[0] == together.decided_at[row]


def test_the_exact_cache_gives_the_text_of_no_cache():
  both = Sampling(temperature=[0.0] * 3 + [1.0] * 3)
  settings = dict(plan=PLAN, sampling=both, key=1)
  plain = denoise(BLOCKS, PARAMS, PROMPTS * 2, **settings)
  cached = denoise(BLOCKS, PARAMS, PROMPTS * 2, cache=ExactBlocks(), **settings)
  assert cached.tokens == plain.tokens and cached.decided_at == plain.decided_at


@pytest.mark.parametrize("suffix", [False, True], ids=["prefix", "dual"])
def test_stale_keys_are_used_after_the_first_pass_of_a_block_and_not_before(suffix):
  one_pass = BlockPlan(8, 4, 2)
  cache = BlockStale(suffix=suffix)
  plain = denoise(WHOLE, PARAMS, PROMPTS, plan=one_pass)
  assert denoise(WHOLE, PARAMS, PROMPTS, plan=one_pass, cache=cache).tokens == plain.tokens
  plain = denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN)
  assert denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN, cache=cache).tokens != plain.tokens


def test_a_stale_row_is_the_same_alone_and_among_rows_at_other_passes():
  policy = DecidingPolicy(order=MaxProbability(), transfer=Threshold(threshold=0.35))
  settings = dict(plan=PLAN, policy=policy, cache=BlockStale())
  together = denoise(WHOLE, PARAMS, PROMPTS, **settings)
  assert len(set(together.passes.tolist())) > 1
  for row, prompt in enumerate(PROMPTS):
    assert denoise(WHOLE, PARAMS, [prompt], **settings).tokens[0] == together.tokens[row]


def test_other_prompts_steps_and_thresholds_compile_nothing():
  def decide(prompts, threshold, steps):
    policy = DecidingPolicy(order=MaxProbability(), transfer=Threshold(threshold=threshold))
    plan = BlockPlan(8, 4, steps)
    return denoise(WHOLE, PARAMS, prompts, plan=plan, policy=policy, sampling=NOISY)

  decide(PROMPTS, 0.9, 8)
  before = run.whole._cache_size()
  decide([[1], [3, 3], [5, 6]], 0.5, 4)
  assert run.whole._cache_size() == before


def test_a_row_ends_with_the_block_that_has_an_end():
  plain = denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN)
  eos = plain.tokens[1][1]
  ended = denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN, eos=[eos])
  for tokens, whole, passes in zip(ended.tokens, plain.tokens, ended.passes, strict=True):
    end = whole.index(eos) + 1 if eos in whole else 8
    assert tokens == whole[:end]
    assert passes == (4 if end <= 4 else 8)


def test_the_stream_ends_as_the_loop_does():
  *_, (token, decided_at) = states = list(stream(WHOLE, PARAMS, PROMPTS, plan=PLAN))
  out = denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN)
  assert len(states) == 9 and (states[0][0][0, 3:11] == MASK).all()
  for row, prompt in enumerate(PROMPTS):
    here = slice(len(prompt), len(prompt) + 8)
    assert token[row, here].tolist() == out.tokens[row]
    assert decided_at[row, here].tolist() == out.decided_at[row]


@pytest.mark.parametrize(
  "change,message",
  [
    (dict(prompts=[]), "there is no prompt"),
    (dict(prompts=[[1], []]), "prompt 1 is empty"),
    (dict(prompts=[[V]]), r"prompt 0 has token ids outside 0\.\.10"),
    (dict(prompts=[[1] * 57]), "row 0 has a canvas of 65 entries, 57 of them its prompt"),
    (dict(sampling=Sampling(presence_penalty=1.0)), "takes no penalty"),
    (dict(cache=ExactBlocks()), "only a block-causal model has an exact cache"),
    (dict(network=BLOCKS, cache=BlockStale()), "a block-causal model has an exact cache"),
    (dict(network=SHIFTED, cache=BlockStale(suffix=True)), "use the prefix cache"),
    (dict(network=BLOCKS, plan=BlockPlan(8, 8, 8)), "the network's blocks have 4 positions"),
  ],
)
def test_refusals(change, message):
  settings = dict(network=WHOLE, prompts=PROMPTS, plan=PLAN) | change
  network, prompts = settings.pop("network"), settings.pop("prompts")
  with pytest.raises(ValueError, match=message):
    denoise(network, PARAMS, prompts, **settings)


@pytest.mark.parametrize("mask_id", [-1, 11])
def test_a_mask_must_be_an_input_of_the_model(mask_id):
  with pytest.raises(ValueError, match=r"mask_id must be an input of the model, within 0\.\.10"):
    MaskedNetwork(MODEL, mask_id)
