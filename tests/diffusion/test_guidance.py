"""Guidance of a denoising loop: LLaDA's cfg_scale, a growing contrast, settings per row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise
from mtjax.diffusion.denoising.caches import ExactBlocks
from mtjax.diffusion.denoising.guidance import ClassifierFree, GrowingContrast, Unguided
from mtjax.diffusion.order import MaxProbability
from mtjax.diffusion.transfer import LladaCounts
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import BLOCKS, MASK, PARAMS, PROMPTS, WHOLE, logits_of

PLAN = BlockPlan(8, 4, 8)
POLICY = DecidingPolicy(order=MaxProbability(), transfer=LladaCounts())


def guided(x, prompt, weight_of):
  """Returns c + w (c - u) of a canvas, written out."""
  without = np.where(np.arange(len(x)) < len(prompt), MASK, x)
  given, u = np.array(logits_of(jnp.asarray(np.stack([x, without]))))
  given[:, MASK] = u[:, MASK] = 0
  out = given + weight_of(given)[:, None] * (given - u)
  out[:, MASK] = -np.inf
  return out


def published(prompt, scale):
  """Returns the text of LLaDA's `generate` with cfg_scale, one position per pass, greedily."""
  x = np.array([*prompt, *[MASK] * PLAN.length])
  for begin in range(len(prompt), len(x), PLAN.block_length):
    end = begin + PLAN.block_length
    for _ in range(PLAN.block_length):
      logits = guided(x, prompt, lambda c: np.full(len(c), scale))
      p = np.array(jax.nn.softmax(jnp.asarray(logits)))
      confidence = np.where((x == MASK) & (np.arange(len(x)) < end), p.max(-1), -np.inf)
      x[confidence.argmax()] = logits[confidence.argmax()].argmax()
  return x[len(prompt) :].tolist()


def test_classifier_free_guidance_is_the_published_one_at_a_scale_per_row():
  guidance = ClassifierFree(scale=[0.0, 1.5])
  out = denoise(WHOLE, PARAMS, PROMPTS, plan=PLAN, policy=POLICY, guidance=guidance)
  assert out.tokens == [published(PROMPTS[0], 0.0), published(PROMPTS[1], 1.5)]
  assert published(PROMPTS[1], 0.0) != out.tokens[1], "the case must show the guidance"
  assert out.counters["forwards"] == 2 * out.passes.sum() == 32


def weights_of_contrast(prompt, decay, certain):
  def weights(given):
    distance = np.maximum(np.arange(len(given)) - len(prompt), 0)
    g = np.exp(-decay * distance)
    logits = np.array(given)
    logits[:, MASK] = -np.inf
    p_max = np.array(jax.nn.softmax(jnp.asarray(logits))).max(-1)
    return np.where(p_max < certain, (1 - g) / g, 0.0)

  return weights


@pytest.mark.parametrize("certain", [0.6, 1.0])
def test_the_contrast_grows_with_the_distance_from_the_prompt(certain):
  out = denoise(
    WHOLE,
    PARAMS,
    PROMPTS,
    plan=BlockPlan(8, 8, 1),
    policy=POLICY,
    guidance=GrowingContrast(decay=0.2, certain=certain),
    sampling=Sampling(temperature=1.0),
    trace=True,
  )
  changed = 0
  for row, prompt in enumerate(PROMPTS):
    x = np.array([*prompt, *[MASK] * 8])
    weights = weights_of_contrast(prompt, 0.2, certain)
    log_p = jax.nn.log_softmax(jnp.asarray(guided(x, prompt, weights)))
    plain = jax.nn.log_softmax(jnp.asarray(guided(x, prompt, lambda c: np.zeros(len(c)))))
    for event in out.trace.events(row):
      at = event.position, event.token
      assert event.log_prob == pytest.approx(float(log_p[at]), abs=1e-4)
      changed += abs(log_p[at] - plain[at]) > 1e-2
    assert out.trace.events(row)[0].position == len(prompt)
  assert changed > 4


def test_each_pass_of_guidance_has_an_exact_cache_of_its_own():
  settings = dict(plan=PLAN, guidance=ClassifierFree(scale=1.0))
  plain = denoise(BLOCKS, PARAMS, PROMPTS, **settings)
  assert denoise(BLOCKS, PARAMS, PROMPTS, cache=ExactBlocks(), **settings).tokens == plain.tokens


def test_a_row_without_guidance_is_that_of_an_unguided_batch_bit_for_bit():
  settings = dict(plan=PLAN, sampling=Sampling(temperature=1.0), trace=True)
  plain = denoise(WHOLE, PARAMS, PROMPTS, guidance=Unguided(), **settings).trace
  found = denoise(WHOLE, PARAMS, PROMPTS, guidance=ClassifierFree(scale=[0, 2]), **settings).trace
  np.testing.assert_array_equal(found.passes.log_prob[:, 0], plain.passes.log_prob[:, 0])
  assert (found.passes.log_prob[:, 1] != plain.passes.log_prob[:, 1]).any()


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda: ClassifierFree(scale=-1.0), "scale must be at least 0.0: got -1.0"),
    (lambda: GrowingContrast(certain=1.5), "certain must be at least 0.0, at most 1.0: got 1.5"),
    (lambda: ClassifierFree(scale=[1.0, 2.0, 3.0]).for_rows(2), "scale has 3 values for a batch"),
  ],
)
def test_refusals(make, message):
  with pytest.raises(ValueError, match=message):
    make()
