"""The jitted batch path: chi-square of texts over rounds, identity with plain decoding, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.evaluate.exactness import p_value, sampled_texts, target_probs
from mtjax.sampling.logits import Rules, process, sample
from mtjax.trees import chain
from mtjax.types import DraftScheme, Exactness
from mtjax.verify import VERIFIERS, verify

LENGTH = 2  # tokens compared: 9 cells, of which many span two rounds
TEMPERATURE = 0.8

CASES = [
  pytest.param(name, scheme, id=f"{name}-{scheme.value}")
  for name, verifier in VERIFIERS.items()
  if verifier.exactness is Exactness.LOSSLESS
  for scheme in sorted(verifier.schemes, key=lambda scheme: scheme.value)
  if verifier.needs_q or scheme in (DraftScheme.DELTA, DraftScheme.WITH_REPLACEMENT)
]


def mixed(name, rows):
  """The verifier in a batch whose odd rows are greedy."""
  rules = Rules(temperature=jnp.tile(jnp.array([TEMPERATURE, 0.0]), rows // 2))

  def decide(logits, draft, keys, step):
    return verify(name, jax.jit(process)(logits, rules), draft, keys, step)

  return decide


def check_mixed_batch(name, scheme, models, trees, rows):
  # One draft a position where trees are refused, so that many rounds are short.
  tree = trees["chain" if VERIFIERS[name].chains_only else "binary"]
  p, q = (np.repeat(x[5:6], 2, axis=0) for x in (models.p, models.q))
  decide = mixed(name, rows)
  texts = sampled_texts(
    decide, tree, scheme, p, q, rows=rows, length=LENGTH, key=jax.random.key(11)
  )
  warm = p[:1] ** (1 / TEMPERATURE)
  warm /= warm.sum(axis=-1, keepdims=True)
  assert p_value(texts[::2], target_probs(warm, LENGTH)[0]) > 1e-6
  assert p_value(texts[::2], target_probs(p[:1], LENGTH)[0]) < 1e-6, "a wrong p is not noticed"
  best = np.eye(3)[p[:1].argmax(axis=-1)]
  assert (texts[1::2] == target_probs(best, LENGTH)[0].argmax()).all(), "greedy rows are not greedy"


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_mixed_batches_follow_their_distributions(name, scheme, models, trees):
  """Large enough for a total variation of 0.05."""
  check_mixed_batch(name, scheme, models, trees, rows=2 * 8415)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_mixed_batches_follow_their_distributions_closely(name, scheme, models, trees):
  """Large enough for 0.0167, the least that one of the common mistakes makes."""
  check_mixed_batch(name, scheme, models, trees, rows=2 * 76_000)


@pytest.mark.parametrize("scheme", [DraftScheme.DELTA, DraftScheme.WITH_REPLACEMENT])
def test_sample_match_gives_the_text_of_plain_decoding(scheme, models, trees):
  rows, length, key = 512, 3, jax.random.key(2)
  p, q = models.p[:4], models.q[:4]
  texts = sampled_texts(
    "sample_match", trees["binary"], scheme, p, q, rows=rows, length=length, key=key
  )
  keys = jax.random.split(jax.random.fold_in(key, 1), rows)
  context = np.zeros(rows, np.int64)
  for step in range(length):
    logits = jnp.asarray(np.log(p[np.arange(rows) % 4, context]), jnp.float32)
    context = context * 3 + 1 + np.asarray(sample(logits, keys, jnp.full((rows,), step)))
  np.testing.assert_array_equal(texts, context - 13)


def reusing(name):
  return lambda logits, draft, keys, step: verify(name, logits, draft, keys, 0 * step)


def sharing(name):
  return lambda logits, draft, keys, step: verify(
    name, logits, draft, jnp.broadcast_to(keys[0], keys.shape), step
  )


@pytest.mark.parametrize("name", ["rrs_without", "traversal", "sample_match"])
def test_noise_reused_over_rounds_is_caught(name):
  """The first token's distribution stays right; the joint one of two tokens does not."""
  p, q = (np.tile(probs, (1, 121, 1)) for probs in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]))
  given = (chain(1), DraftScheme.WITHOUT_REPLACEMENT, p, q)
  texts = sampled_texts(reusing(name), *given, rows=16384, length=2, key=jax.random.key(5))
  assert p_value(texts // 3, p[0, 0]) > 1e-4
  assert p_value(texts, target_probs(p, 2)[0]) < 1e-6


def test_noise_shared_by_rows_is_caught(models, trees):
  given = (trees["chain"], DraftScheme.WITHOUT_REPLACEMENT, models.p[5:6], models.q[5:6])
  texts = sampled_texts(sharing("rrs_without"), *given, rows=8192, length=2, key=jax.random.key(5))
  assert p_value(texts, target_probs(models.p[5:6], 2)[0]) < 1e-6


@pytest.mark.parametrize("name", ["traversal", "sample_match"])
def test_a_row_does_not_depend_on_its_batch(name, models, trees):
  seen = []

  def spy(logits, draft, keys, step):
    whole = verify(name, logits, draft, keys, step)
    part = verify(name, logits[5:6], jax.tree.map(lambda x: x[5:6], draft), keys[5:6], step[5:6])
    seen.append((whole, part))
    return whole

  sampled_texts(
    spy,
    trees["binary"],
    DraftScheme.WITHOUT_REPLACEMENT,
    models.p[:1],
    models.q[:1],
    rows=8,
    length=2,
    key=jax.random.key(0),
  )
  for whole, part in seen:
    count = int(part.count[0])
    assert int(whole.count[5]) == count and int(whole.token[5]) == int(part.token[0])
    np.testing.assert_array_equal(whole.path[5, :count], part.path[0, :count])
