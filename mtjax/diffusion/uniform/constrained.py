"""Uniform canvases with a constraint on the text: what a pass may predict, and what becomes text.

APPROXIMATE, as `mtjax.constraints.canvas` says. A pass restricts each position on its own to the
tokens with which the text can be completed, whatever the rest of the canvas becomes: nothing of a
canvas in progress is final. What a canvas samples on its way may be refused; the text that it
leaves is decided from left to right, each token given those before it, and is accepted.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax.constraints.canvas import allowed_on_canvas, decide_along, logits_along
from mtjax.diffusion.uniform.state import UniformJob, UniformState
from mtjax.sampling.logits import Rules, adjusted

# Nats by which tokens that filters have removed are behind all others: float32 has no exp(-1000).
_BEHIND = 1000.0


def restrict_canvas(
  job: UniformJob, state: UniformState, logits: Float[Array, "B W V"]
) -> Float[Array, "B W V"]:
  """Returns logits with -inf at tokens with which a text cannot be completed, by position."""
  if job.constraint is None:
    return logits
  automata, canvas = job.constraint.automata, _canvas(job, state)
  allowed = allowed_on_canvas(automata, *canvas, state.places())
  return jnp.where(allowed, logits, -jnp.inf)


def text_along(
  job: UniformJob,
  state: UniformState,
  logits: Float[Array, "B W V"],
  sampled_from: Float[Array, "B W N"],
  keys: Key[Array, "B W"],
) -> Int[Array, "B W"]:
  """Returns the text of canvases that end now, of which each token fits those before it.

  `logits`: the network's, not processed. `sampled_from`: those of `UniformRule.logits`.
  """
  assert job.constraint is not None
  logits, rules = _source(job, logits, sampled_from)
  where, every = state.places(), jnp.ones(keys.shape, bool)
  automata, canvas = job.constraint.automata, _canvas(job, state)
  return decide_along(automata, rules, logits, *canvas, where, every, keys)


def text_logits(
  job: UniformJob,
  state: UniformState,
  logits: Float[Array, "B W V"],
  sampled_from: Float[Array, "B W N"],
  text: Int[Array, "B W"],
) -> Float[Array, "B W V"]:
  """Returns the logits that a text comes from, if it is that of `text_along`; not processed."""
  assert job.constraint is not None
  logits, _ = _source(job, logits, sampled_from)
  where, every = state.places(), jnp.ones(text.shape, bool)
  automata, canvas = job.constraint.automata, _canvas(job, state)
  return logits_along(automata, logits, *canvas, where, every, text)


def _source(job: UniformJob, logits, sampled_from) -> tuple[Float[Array, "B W V"], Rules]:
  """Returns logits and the rules by which they are sampled, with a chance for every token.

  A filter may have left none of those that fit the tokens before.
  """
  if job.rule.greedy_text:
    return logits, job.filters
  plain = jax.nn.log_softmax(adjusted(logits, job.filters))
  own = sampled_from[..., : plain.shape[-1]]
  none = ~jnp.any(own > -jnp.inf, axis=-1, keepdims=True)  # it can only become a mask
  own = jnp.where(none, -jnp.inf, jax.nn.log_softmax(jnp.where(none, 0.0, own)))
  return jnp.maximum(own, plain - _BEHIND), Rules(temperature=jnp.ones(len(logits)))


def _canvas(
  job: UniformJob, state: UniformState
) -> tuple[Int[Array, "B S"], Bool[Array, "B S"], Bool[Array, "B S"]]:
  """Returns the text, what of it is still free, and what of the entries is text at all."""
  assert job.constraint is not None
  place = jnp.arange(state.token.shape[1])
  inside = (place >= job.start[:, None]) & (place < job.constraint.end[:, None])
  return state.token, inside & (place >= state.begin[:, None]), inside
