"""Enumerates denoising: the distribution of canvases after every pass, in float64.

An author of a rule calls:

  rng = np.random.default_rng(0)
  toy = perturbed(conditionals_of(rng.dirichlet(np.ones(8)).reshape(2, 2, 2)), rng, scale=1.0)
  exact = text_probs(DecidingPolicy(), toy, steps=3).probs
  mine = text_probs(DecidingPolicy(transfer=MyRule()), toy, steps=3).probs
  assert total_variation(mine, exact) < 1e-12

The rules are those of decoding, jitted, at temperature 1; what is enumerated are the candidates of
all positions and the outcomes of the rules' random numbers. One canvas of L positions is one block.
Canvases have (V + 1)^L states and a pass has up to V^L L! outcomes in each: toys must be small.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mtjax.diffusion.candidates import candidates_of
from mtjax.diffusion.plan import linear_rates
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.random_numbers import Stream
from mtjax.diffusion.view import View, apply_revision
from mtjax.evaluate.denoising.conditionals import Conditionals
from mtjax.evaluate.denoising.outcomes import Choices, chances, noises

CHUNK = 2048  # rows of one call: one shape, one compilation per policy
MAX_BRANCHES = 1 << 20


class Passes(NamedTuple):
  """The canvases after so many passes."""

  probs: Float[np.ndarray, " canvases"]  # of every canvas, finished or not
  running: float  # probability that another pass follows


class TextProbs(NamedTuple):
  """The distribution of a policy's texts, and what they cost."""

  probs: Float[np.ndarray, " texts"]
  passes: float  # mean number of passes


class _Branches(NamedTuple):
  """Canvases in progress, with what the rules remember of how they became so."""

  weight: Float[np.ndarray, " M"]
  token: Int[np.ndarray, "M L"]
  order: Any
  revise: Any


def text_probs(
  policy: DecidingPolicy, toy: Conditionals, *, steps: int, max_passes: int = 64
) -> TextProbs:
  """Returns the distribution of texts with `steps` planned passes.

  Raises ValueError if masks or revisions are left after `max_passes` passes, and for rules whose
  random numbers or states are more than can be enumerated.
  """
  count, last = 0.0, None
  running = 1.0
  for last in itertools.islice(passes(policy, toy, steps=steps), max_passes):
    count, running = count + running, last.running
  if last is None or running > 1e-12:
    raise ValueError(f"after {max_passes} passes the texts are unfinished with p = {running:.3g}")
  return TextProbs(last.probs[toy.texts], count)


def passes(policy: DecidingPolicy, toy: Conditionals, *, steps: int) -> Iterator[Passes]:
  """Yields the distribution of canvases after each pass, until all are finished."""
  with jax.enable_x64(True):
    states = policy.start(1, toy.length, toy.vocab + 1)
  masks = np.full((1, toy.length), toy.vocab)
  branches = _Branches(np.ones(1), masks, *jax.tree.map(np.asarray, states))
  finished = np.zeros(len(toy.probs))
  rows = policy.for_rows(CHUNK)
  for step in itertools.count():
    if not len(branches.weight):
      return
    branches, more = _after_pass(rows, toy, branches, step, steps)
    number = toy.number(branches.token)
    np.add.at(finished, number[~more], branches.weight[~more])
    branches = _merged(jax.tree.map(lambda x, keep=more: x[keep], branches))
    probs = finished.copy()
    np.add.at(probs, toy.number(branches.token), branches.weight)
    yield Passes(probs, float(branches.weight.sum()))


def _after_pass(policy, toy: Conditionals, branches: _Branches, step: int, steps: int):
  """Returns all outcomes of a pass, and which of them need another."""
  seen = toy.number(branches.token)
  work = (branches.order, *_table(toy, seen))
  order, (logits, drift) = _in_chunks(_prepare, policy, work, step, steps)
  token = np.array(list(itertools.product(range(toy.vocab), repeat=toy.length)))
  # Probabilities of all candidates: those of decided positions matter only if they are edited.
  top = logits.max(axis=-1, keepdims=True)
  p = np.exp(logits - top)
  p /= p.sum(axis=-1, keepdims=True)
  weight = np.ones((len(seen), len(token)))
  for i in range(toy.length):
    weight *= p[:, i, token[:, i]]
  row, which = np.nonzero(weight * branches.weight[:, None])
  weight = branches.weight[row] * weight[row, which]
  work = (branches.revise, *_table(toy, seen), logits, drift)
  work = (*jax.tree.map(lambda x: x[row], work), token[which])
  chance = _in_chunks(_chances, policy, work, step, steps)
  choices = noises(policy, chance, branches.token[row] == toy.vocab)
  pair, k = np.nonzero(choices.weight)
  if len(pair) > MAX_BRANCHES:
    raise ValueError(f"a pass has {len(pair)} outcomes: take a smaller toy or fewer passes")
  noise = _picked(choices, pair, k)
  work = (*jax.tree.map(lambda x: x[pair], work), noise)
  after, more, revise = _in_chunks(_decide, policy, work, step, steps)
  order = jax.tree.map(lambda x: x[row][pair], order)
  weight = weight[pair] * choices.weight[pair, k]
  return _Branches(weight, after, order, revise), more


def _table(toy: Conditionals, number):
  """Returns the tokens of canvases, and the logits and shadow logits of the toy there."""
  columns = []
  for probs in (toy.probs, toy.shadow):
    p = np.pad(probs[number], ((0, 0), (0, 0), (0, 1)))  # the mask has no chance
    columns.append(np.log(p, where=p > 0, out=np.full(p.shape, -np.inf)))
  tokens = number[:, None] // (toy.vocab + 1) ** np.arange(toy.length)[::-1] % (toy.vocab + 1)
  return tokens, *columns


def _picked(choices: Choices, pair, k):
  return {
    stream: x[pair if len(x) > 1 else 0, k if x.shape[1] > 1 else 0] + np.zeros((len(pair), 1))
    for stream, x in choices.noise.items()
  }


def _merged(branches: _Branches) -> _Branches:
  """Returns the branches, those of the same canvas and states as one."""
  count = len(branches.weight)
  if not count:
    return branches
  columns = [x.reshape(count, -1) for x in jax.tree.leaves(branches[1:])]
  _, index, inverse = np.unique(
    np.concatenate(columns, axis=1).astype(np.float64),
    axis=0,
    return_index=True,
    return_inverse=True,
  )
  weight = np.bincount(inverse.ravel(), branches.weight)
  return _Branches(weight, *jax.tree.map(lambda x: x[index], tuple(branches[1:])))


def _in_chunks(function, policy, rows, step: int, steps: int):
  """Returns function(policy, rows, step, steps) for any number of rows, as numpy arrays."""
  count = len(jax.tree.leaves(rows)[0])
  parts = []
  with jax.enable_x64(True):
    for start in range(0, count, CHUNK):
      index = np.minimum(np.arange(start, start + CHUNK), count - 1)
      part = function(policy, jax.tree.map(lambda x: x[index], rows), step, steps)  # noqa: B023
      parts.append(jax.tree.map(np.asarray, part))
  return jax.tree.map(lambda *xs: np.concatenate(xs)[:count], *parts)


def _view(token, logits, shadow, step, steps, noise=None, drift=None) -> View:
  batch, length, vocab = logits.shape

  def all_rows(value, dtype):
    return jnp.full(batch, value, dtype)

  masked = token == vocab - 1
  step_of_row, steps_of_row = all_rows(step, jnp.int32), all_rows(steps, jnp.int32)
  t, s = linear_rates(step_of_row, steps_of_row, final=0.0)
  return View(
    logits=logits,
    scored=logits,
    token=jnp.asarray(token, jnp.int32),
    position=jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length)),
    masked=masked,
    open=masked,
    decided=~masked,
    total=all_rows(length, jnp.int32),
    step=step_of_row,
    steps=steps_of_row,
    t=t.astype(logits.dtype),
    s=s.astype(logits.dtype),
    passes=step_of_row,
    key=jax.vmap(jax.random.key)(jnp.zeros(batch, jnp.uint32)),
    shadow=shadow,
    drift=drift,
    noise={} if noise is None else noise,
  )


@jax.jit
def _prepare(policy, rows, step, steps):
  order, token, logits, shadow = rows
  view, order = policy.order.prepare(order, _view(token, logits, shadow, step, steps))
  return order, (view.logits, view.drift)


@jax.jit
def _chances(policy, rows, step, steps):
  revise, token, _, shadow, logits, drift, candidate = rows
  noise = {Stream.ORDER: jnp.zeros(token.shape)}  # of a uniform order, which no chance depends on
  view = _view(token, logits, shadow, step, steps, noise, drift)
  return chances(policy, revise, view, candidates_of(view, jnp.asarray(candidate, jnp.int32)))


@jax.jit
def _decide(policy, rows, step, steps):
  revise, token, _, shadow, logits, drift, candidate, noise = rows
  view = _view(token, logits, shadow, step, steps, noise, drift)
  candidates = candidates_of(view, jnp.asarray(candidate, jnp.int32))
  revision, revise = policy.decide(revise, view, candidates)
  after, masked = apply_revision(view, candidates.token, revision, logits.shape[-1] - 1)
  return after, jnp.any(masked, axis=1) | revision.more, revise
