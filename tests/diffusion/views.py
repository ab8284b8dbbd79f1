"""Views with logits written by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.diffusion.candidates import candidates_of
from mtjax.diffusion.plan import linear_rates
from mtjax.diffusion.view import View, apply_revision
from mtjax.sampling.categorical import argmax


def make_view(scored, *, is_open=None, decided=None, seed=0, **changes):
  """Returns a view in which all positions are open, or `is_open`; tokens are sampled as scored."""
  scored = jnp.asarray(scored)
  batch, size, _ = scored.shape
  is_open = np.ones((batch, size), bool) if is_open is None else np.asarray(is_open)
  decided = np.zeros_like(is_open) if decided is None else np.asarray(decided)

  def rows(value, dtype):
    return jnp.broadcast_to(jnp.asarray(value, dtype), (batch,))

  numbers = dict(total=is_open.sum(axis=1), step=0, steps=1, passes=0)
  rates = dict(t=1.0, s=0.5)
  numbers.update({name: changes.pop(name) for name in tuple(changes) if name in numbers})
  rates.update({name: changes.pop(name) for name in tuple(changes) if name in rates})
  view = View(
    logits=scored,
    scored=scored,
    token=jnp.zeros((batch, size), jnp.int32),
    position=jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), (batch, size)),
    masked=jnp.asarray(is_open),
    open=jnp.asarray(is_open),
    decided=jnp.asarray(decided),
    key=jax.vmap(jax.random.key)(jnp.arange(batch) + seed),
    **{name: rows(value, jnp.int32) for name, value in numbers.items()},
    **{name: rows(value, jnp.float32) for name, value in rates.items()},
  )
  return view.replace(**changes)


@jax.jit
def _scripted_pass(policy, states, view, logits, shadow):
  view = view.replace(logits=logits, scored=logits, shadow=shadow)
  view, order = policy.order.prepare(states[0], view)
  candidates = candidates_of(view, argmax(view.logits))
  revision, revise = policy.decide(states[1], view, candidates)
  mask = logits.shape[-1] - 1
  token, masked = apply_revision(view, candidates.token, revision, mask)
  return (order, revise), token, masked, jnp.any(masked, axis=1) | revision.more


def decode_scripted(policy, script, *, steps=1, shadow=None):
  """Returns the canvases after every pass, [P, B, L], and each row's number of passes.

  `script` [P, B, L, V] are the logits of every pass, whatever the canvas is; the last id is the
  mask, which they exclude. Rows are greedy, and keep their text when they have ended.
  """
  passes, batch, size, vocab = script.shape
  is_mask = np.arange(vocab) == vocab - 1
  script = np.where(is_mask, -np.inf, script).astype(np.float32)
  shadow = script if shadow is None else np.where(is_mask, -np.inf, shadow).astype(np.float32)
  policy = policy.for_rows(batch)
  states = policy.start(batch, size, vocab)
  token = np.full((batch, size), vocab - 1, np.int32)
  running, count, canvases = np.ones(batch, bool), np.zeros(batch, int), []
  for step in range(passes):
    masked = (token == vocab - 1) & running[:, None]
    view = make_view(script[step], is_open=masked, decided=~masked & running[:, None])
    t, s = linear_rates(jnp.full(batch, step), jnp.full(batch, steps), final=1e-3)
    numbers = dict(step=jnp.full(batch, step), steps=jnp.full(batch, steps), t=t, s=s)
    view = view.replace(token=jnp.asarray(token), total=jnp.full(batch, size), **numbers)
    states, after, _, more = _scripted_pass(policy, states, view, script[step], shadow[step])
    token = np.where(running[:, None], np.asarray(after), token)
    count, running = count + running, running & np.asarray(more)
    canvases.append(token)
  return np.array(canvases), count
