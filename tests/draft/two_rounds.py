"""The distribution of generated texts against the target's own: V**3 texts are counted.

The first token is the prefill's; the other two span one round or two, jointly, so randomness that
is used twice shows. See tests/core/test_sampled_texts.py for plain decoding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtjax import frontier
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.evaluate import exactness
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling

VOCAB, LENGTH, WARMTH, PROMPT = 5, 3, 0.9, [2, 0]
# To see a total variation of 0.05 and 0.02 among 125 texts, whatever its direction (level 1e-6,
# power 0.999); chunks of one size share a compilation.
CHUNK, CHUNKS = 18_000, 7


@functools.cache
def model(seed):
  config = TransformerConfig(
    vocab_size=VOCAB, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
  )
  params = Model(config).init(jax.random.key(seed))
  return Model(config), jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, params)


TARGET, DRAFT = 1, 2  # seeds of `model`


def texts(drafter, verifier, *, rows=CHUNK, temperature=WARMTH, key=0):
  """Texts of a drafter that is made of the draft model, as numbers below VOCAB**LENGTH."""
  target, params = model(TARGET)
  small, small_params = model(DRAFT)
  out = generate(
    target,
    params,
    [PROMPT] * rows,
    max_tokens=LENGTH,
    sampling=Sampling(temperature=temperature),
    key=key,
    method=Speculative(drafter(small), verifier),
    method_params=small_params,
  )
  return np.array(out.tokens) @ VOCAB ** np.arange(LENGTH)[::-1]


@functools.cache
def target_probs():
  target, params = model(TARGET)
  every = np.indices((VOCAB,) * LENGTH).reshape(LENGTH, -1).T
  rows = np.concatenate([np.tile(PROMPT, (len(every), 1)), every], axis=1)
  logits = jax.jit(target.forward)(params, frontier.causal(jnp.asarray(rows))).logits
  each = np.asarray(jax.nn.softmax(logits[:, 1:-1] / WARMTH, axis=-1), np.float64)
  whole = np.take_along_axis(each, every[..., None], axis=2)[..., 0].prod(axis=1)
  return whole / whole.sum()


def p_value(found):
  return exactness.p_value(found, target_probs())
