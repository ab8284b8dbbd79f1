"""Soft inputs: dInfer's soft iteration and DMax against plain programs over dense logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, denoise_by_blocks, replay
from mtjax.diffusion.denoising.caches import BlockStale, ExactBlocks
from mtjax.diffusion.denoising.guidance import SoftIteration
from mtjax.diffusion.denoising.machines import TokenMerge
from mtjax.diffusion.order import MaxProbability, SampledProbability
from mtjax.diffusion.revise import Wino
from mtjax.diffusion.rule import rule
from mtjax.diffusion.transfer import FallingThreshold, Threshold, WinoDraft
from mtjax.models import Model
from mtjax.models.access import EmbeddingAccess
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import BLOCKS, CONFIG, MASK, MODEL, PARAMS, PROMPTS, WHOLE

TABLE = np.asarray(PARAMS["embedding"]["table"])
SIZE = 24


@jax.jit
def of_vectors(vector, end):
  """Returns probabilities of whole canvases whose inputs are all vectors."""
  frontier = frontier_lib.bidirectional(jnp.zeros(vector.shape[:2], jnp.int32), length=end)
  output = MODEL.forward(PARAMS, frontier_lib.with_vectors(frontier, vector))
  return jax.nn.softmax(WHOLE.logits(output))[0]


@jax.jit
def of_vectors_in_blocks(vector, end):
  frontier = BLOCKS.canvas(jnp.zeros(vector.shape[:2], jnp.int32), end)
  output = MODEL.forward(PARAMS, frontier_lib.with_vectors(frontier, vector))
  return jax.nn.softmax(BLOCKS.logits(output))[0]


def probabilities(forward, vector, end):
  padded = np.zeros((1, SIZE, vector.shape[1]), np.float32)
  padded[0, : len(vector)] = vector
  return np.asarray(forward(jnp.asarray(padded), jnp.array([end])))[: len(vector)]


def test_rows_of_the_table_are_what_tokens_are_read_as():
  token = jnp.asarray([PROMPTS[1]])
  plain = MODEL.forward(PARAMS, frontier_lib.bidirectional(token)).logits
  rows = EmbeddingAccess.of(CONFIG).rows(PARAMS, token)
  soft = frontier_lib.with_vectors(frontier_lib.bidirectional(0 * token), rows)
  np.testing.assert_allclose(MODEL.forward(PARAMS, soft).logits, plain, atol=1e-6)
  p = jax.nn.softmax(plain)
  expected = EmbeddingAccess.of(CONFIG).expected(PARAMS, p)
  np.testing.assert_allclose(expected, np.asarray(p) @ TABLE, rtol=1e-5, atol=1e-6)


def test_an_extra_embedding_has_a_row_too():
  config = dataclasses.replace(CONFIG, extra_embeddings=1, extra_names=("mask",))
  params = Model(config).init(jax.random.key(1))
  rows = EmbeddingAccess.of(config).rows(params, jnp.array([[2, config.vocab_size]]))
  wanted = [params["embedding"]["table"][2], params["extra"]["table"][0]]
  np.testing.assert_array_equal(rows[0], jnp.stack(wanted))


def soft_iteration_in_numpy(prompt, blocks, guidance, falling):
  """Returns text and passes of `IterationSmooth`, greedily, in blocks of 4."""
  x = np.array([*prompt, *[MASK] * 4 * blocks])
  more, number, at = np.zeros((len(x), TABLE.shape[1])), 0, np.zeros(len(x), int)
  for begin in range(len(prompt), len(x), 4):
    here = np.arange(begin, begin + 4)
    while (x[here] == MASK).any():
      vector = TABLE[x] + np.where(x == MASK, 1, 0)[:, None] * more
      p = probabilities(of_vectors, vector.astype(np.float32), len(x))[here]
      threshold = max(1 - falling.decay * number, falling.threshold)
      masked = x[here] == MASK
      sure = np.where(masked, p.max(-1), -1)
      chosen = masked & (sure >= threshold)
      chosen[sure.argmax()] = True
      weight = min(guidance.start_weight + guidance.growth * number, guidance.limit)
      more[here] = weight * (p @ TABLE)
      number += 1
      x[here[chosen]], at[here[chosen]] = p.argmax(-1)[chosen], number
  return x[len(prompt) :].tolist(), at[len(prompt) :].tolist()


SOFT = SoftIteration(start_weight=0.3, growth=0.2, limit=0.6)
FALLING = FallingThreshold(threshold=0.4, decay=0.2)


def soft(network, guidance=SOFT, transfer=FALLING, **settings):
  policy = DecidingPolicy(MaxProbability(), transfer)
  settings = dict(plan=BlockPlan(8, 4, 8), policy=policy, guidance=guidance) | settings
  return denoise(network, PARAMS, PROMPTS, **settings)


def test_soft_iteration_is_the_published_one():
  out = soft(WHOLE, trace=True)
  wanted = [soft_iteration_in_numpy(prompt, 2, SOFT, FALLING) for prompt in PROMPTS]
  assert out.tokens == [tokens for tokens, _ in wanted]
  assert out.decided_at == [at for _, at in wanted]
  assert out.counters["forwards"] == out.passes.sum()
  plain = dataclasses.replace(SOFT, start_weight=0.0, growth=0.0)
  assert soft(WHOLE, plain).tokens != out.tokens, "the case must show the vectors"
  assert soft(WHOLE, transfer=Threshold(0.4)).decided_at != out.decided_at, "and the threshold"
  np.testing.assert_allclose(replay(WHOLE, PARAMS, out.trace), out.trace.passes.log_prob, atol=1e-6)


def test_without_weight_soft_iteration_changes_nothing():
  none = SoftIteration(start_weight=0.0, growth=0.0)
  plain = denoise(
    WHOLE,
    PARAMS,
    PROMPTS,
    plan=BlockPlan(8, 4, 8),
    policy=DecidingPolicy(MaxProbability(), FALLING),
  )
  assert soft(WHOLE, none).tokens == plain.tokens


def test_soft_inputs_over_exact_keys_are_those_of_the_whole_canvas():
  noisy = dict(sampling=Sampling(temperature=1.0), key=3, trace=True)
  whole, cached = soft(BLOCKS, **noisy), soft(BLOCKS, cache=ExactBlocks(), **noisy)
  assert whole.tokens == cached.tokens
  np.testing.assert_allclose(whole.trace.passes.log_prob, cached.trace.passes.log_prob, atol=1e-5)


def merged(x, share):
  own, mask = TABLE[x], TABLE[MASK]
  p = share[:, None]
  mixture = p * own + (1 - p) * mask
  wanted = p * np.linalg.norm(own, axis=1, keepdims=True) + (1 - p) * np.linalg.norm(mask)
  return mixture * wanted / np.linalg.norm(mixture, axis=1, keepdims=True)


def dmax_in_numpy(prompt, length, machine):
  """Returns text and passes of DMax block by block, with a pass that commits each."""
  begin = len(prompt) // 4 * 4
  end = -(-(len(prompt) + length) // 4) * 4
  x = np.array([*prompt, *[MASK] * (end - len(prompt))])
  share, at, number = np.ones(end), np.zeros(end, int), 0
  for block in range(begin, end, 4):
    here = np.arange(max(block, len(prompt)), block + 4)
    number += block > begin  # the block before is computed as it became
    post = 0
    while True:
      number += 1
      vector = merged(x, share).astype(np.float32)
      p = probabilities(of_vectors_in_blocks, vector, block + 4)[here]
      best, sure, masked = p.argmax(-1), p.max(-1), x[here] == MASK
      target = np.where(masked, MASK, best)
      for order, place in enumerate(np.flatnonzero(masked)):
        if sure[place] < machine.threshold and order:
          break
        target[place] = best[place]
        if sure[place] < machine.threshold:
          break
      changed = target != x[here]
      at[here[changed]] = number
      x[here] = target
      share[here] = np.where(target == MASK, 1, sure)
      post += not masked.any()
      late = post >= machine.max_post_steps
      settled = not changed.any() or (sure >= machine.confident).all() or late
      if settled and (target != MASK).all():
        break
    share[here] = 1
  here = slice(len(prompt), len(prompt) + length)
  return x[here].tolist(), at[here].tolist(), number


SHADOWS = DecidingPolicy(SampledProbability(), WinoDraft(), Wino())
DMAX = TokenMerge(threshold=0.35, confident=0.6, max_post_steps=3)


def test_dmax_is_the_published_machine():
  out = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, length=8, machine=DMAX, trace=True)
  wanted = [dmax_in_numpy(prompt, 8, DMAX) for prompt in PROMPTS]
  assert out.tokens == [tokens for tokens, _, _ in wanted]
  assert out.decided_at == [at for _, at, _ in wanted]
  assert out.passes.tolist() == [number for _, _, number in wanted]
  np.testing.assert_allclose(
    replay(BLOCKS, PARAMS, out.trace), out.trace.passes.log_prob, atol=1e-6
  )


@rule
class Hard(TokenMerge):
  """Negative control: tokens are seen as they are."""

  def soften(self, network, params, memory):
    return None


def test_dmax_with_hard_inputs_is_another_machine():
  """The test above sees whether inputs are merged."""
  hard = Hard(threshold=0.35, confident=0.6, max_post_steps=3)
  out = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, length=8, machine=hard)
  wanted = [dmax_in_numpy(prompt, 8, DMAX) for prompt in PROMPTS]
  assert out.decided_at != [at for _, at, _ in wanted]


def test_a_row_of_dmax_is_the_same_alone():
  keys = jax.random.split(jax.random.key(0), 2)
  settings = dict(length=8, machine=DMAX, sampling=Sampling(temperature=0.7))
  both = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, key=keys, **settings)
  alone = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS[1:], key=keys[1:], **settings)
  assert alone.tokens[0] == both.tokens[1] and alone.decided_at[0] == both.decided_at[1]


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda: soft(WHOLE, cache=BlockStale()), "soft inputs, which BlockStale does not compute"),
    (lambda: soft(WHOLE, lookahead=2), "canvases, of which SoftIteration has no inputs"),
    (lambda: soft(WHOLE, policy=SHADOWS), "shadow entries, which SoftIteration does not guide"),
    (lambda: SoftIteration(limit=2.0), "limit must be at least 0.0, at most 1.0: got 2.0"),
    (lambda: TokenMerge(threshold=0), "threshold must be above 0.0"),
    (
      lambda: denoise_by_blocks(WHOLE, PARAMS, PROMPTS, length=8, machine=DMAX),
      "merging tokens with masks needs a block-causal network",
    ),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()
