"""The candidate of every position in a pass: its token, and how probable that is."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mtjax.diffusion.random_numbers import Stream, position_keys
from mtjax.diffusion.view import View
from mtjax.display.short import short_repr
from mtjax.sampling.categorical import sample_categorical


class CanvasCandidates(struct.PyTreeNode):
  """One token per position, and its log-probability under two distributions."""

  token: Int[Array, "B L"]
  log_prob: Float[Array, "B L"]  # under `View.logits`, which the token was sampled from
  confidence: Float[Array, "B L"]  # under `View.scored`

  __repr__ = short_repr


def sample_candidates(view: View) -> CanvasCandidates:
  """Returns the candidates: argmax in greedy rows, sampled from softmax(logits) in others.

  LLaDA's published form, argmax exp(l) / (-ln u)^T, is argmax l + T G with Gumbel noise G, and so a
  sample of softmax(l / T): what `View.logits` of a row at temperature T are the logits of. Its
  confidence does not have the temperature (`View.scored`).

  With `View.best` the argmax is known, and its probability under the processed logits is 1.
  """
  if view.best is not None:
    confidence = log_prob_of(view.scored, view.best)
    return CanvasCandidates(view.best, jnp.zeros_like(confidence), confidence)
  keys = position_keys(view, Stream.TOKEN)
  return candidates_of(view, jax.vmap(jax.vmap(sample_categorical))(view.logits, keys))


def candidates_of(view: View, token: Int[Array, "B L"]) -> CanvasCandidates:
  """Returns the candidates with these tokens."""
  return CanvasCandidates(token, log_prob_of(view.logits, token), log_prob_of(view.scored, token))


def log_prob_of(logits: Float[Array, "B L V"], token: Int[Array, "B L"]) -> Float[Array, "B L"]:
  """Returns the log-probability of one token per position."""
  log_p = jax.nn.log_softmax(logits, axis=-1)
  return jnp.take_along_axis(log_p, token[:, :, None], axis=-1)[:, :, 0]
