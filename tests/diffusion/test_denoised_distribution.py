"""Texts that the jitted loop samples have the enumerated distribution of its network's policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from mtjax.diffusion.order import Credit, RandomPositions, SampledProbability
from mtjax.diffusion.revise import RemdmConf, RemdmRescale
from mtjax.diffusion.transfer import Ancestral, DreamCounts, OneByOne, Threshold
from mtjax.evaluate.denoising import Conditionals, canvases, text_probs
from mtjax.evaluate.exactness import p_value, total_variation
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling
from tests.compiled import forward

V, LENGTH, ROWS, BATCHES, STEPS = 2, 3, 4096, 2, 3
MASK = V  # an id of the network's vocabulary
CONFIG = TransformerConfig(
  vocab_size=V + 1,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=32,
  layers=uniform_layers(2),
  max_position=16,
  predicts="masked",
)
MODEL = Model(CONFIG)
PARAMS = jax.tree.map(lambda x: 2 * x, MODEL.init(jax.random.key(2)))
NETWORK = MaskedNetwork(MODEL, MASK)
PROMPT = [1]


@pytest.fixture(scope="module")
def toy():
  """Returns what the network predicts for every canvas after the prompt."""
  token = np.pad(canvases(LENGTH, V), ((0, 0), (1, 0)), constant_values=PROMPT[0])
  frontier = frontier_lib.bidirectional(jnp.asarray(token, jnp.int32))
  logits = np.asarray(forward(MODEL, PARAMS, frontier).logits, np.float64)[:, 1:, :V]
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return Conditionals(p / p.sum(-1, keepdims=True))


def sampled(policy) -> np.ndarray:
  """Returns the numbers of many sampled texts, in the order of `text_probs`."""
  texts = []
  for seed in range(BATCHES):
    out = denoise(
      NETWORK,
      PARAMS,
      [PROMPT] * ROWS,
      plan=BlockPlan(LENGTH, LENGTH, STEPS),
      policy=policy,
      sampling=Sampling(temperature=1.0),
      key=seed,
    )
    texts.append(np.array(out.tokens) @ V ** np.arange(LENGTH)[::-1])
  return np.concatenate(texts)


POLICIES = {
  "first hitting": DecidingPolicy(),
  "threshold": DecidingPolicy(SampledProbability(), Threshold(0.7)),
  "ancestral": DecidingPolicy(RandomPositions(), Ancestral()),
  "ranking with noise": DecidingPolicy(SampledProbability(), DreamCounts(0.3)),
  "credit": DecidingPolicy(Credit(), OneByOne()),
  "rescaled sigma": DecidingPolicy(RandomPositions(), Ancestral(), RemdmRescale(0.6)),
  "sigma by confidence": DecidingPolicy(RandomPositions(), Ancestral(), RemdmConf()),
}


def test_texts_have_the_enumerated_distribution_of_their_policy_and_of_no_other(toy):
  probs = {name: text_probs(policy, toy, steps=STEPS).probs for name, policy in POLICIES.items()}
  for name, policy in POLICIES.items():
    texts = sampled(policy)
    assert p_value(texts, probs[name]) > 1e-3, name
    for other, p in probs.items():
      far = total_variation(p, probs[name])
      assert far < 0.06 or p_value(texts, p) < 1e-6, f"{name} against {other}: {far}"


def test_the_network_is_no_easy_one(toy):
  """Its policies differ, so that one cannot pass for another."""
  probs = [text_probs(policy, toy, steps=STEPS).probs for policy in POLICIES.values()]
  far = [total_variation(p, q) for i, p in enumerate(probs) for q in probs[:i]]
  assert np.median(far) > 0.03
  # Nor are there ties, which the rounding of another batch size would break in another way.
  for token, p in zip(canvases(LENGTH, V), toy.probs, strict=True):
    if (token == MASK).sum() > 1:
      assert np.diff(np.sort(p[token == MASK], axis=None)).min() > 1e-4
