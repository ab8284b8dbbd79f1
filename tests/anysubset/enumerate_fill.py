"""Every result that filling can have, with its probability: a method's distribution, enumerated.

The states of all possible histories are one batch. Where `mtjax.anysubset.filling.step` samples or
verifies, each row becomes one row per outcome, with the verifier's own probabilities of outcomes;
all else is the library's code, jitted, in float64.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.anysubset.filling import passes
from mtjax.anysubset.filling import step as step_lib
from mtjax.types import Verdict
from mtjax.verify import VERIFIERS

CHUNK = 512  # number of rows computed at once: one shape, one compilation


class Distribution(NamedTuple):
  chance: dict[tuple[int, ...], float]  # target tokens, in the order -> probability
  passes: dict[int, float]  # number of passes -> probability

  @property
  def mean_passes(self) -> float:
    return sum(n * p for n, p in self.passes.items())


def distribution_of(method, network, tables, problem) -> Distribution:
  """Returns the distribution of the one row that `problem` has."""
  with jax.enable_x64(True):
    return _distribution_of(method, network, tables, problem)


def _distribution_of(method, network, tables, problem):
  tables = jax.tree.map(jnp.asarray, tables)
  vocab = network.vocab
  weight, state = _first(method, network, tables, problem, vocab)
  chance, number = {}, {}
  while len(weight):
    for phase in method.round:
      weight, state = _merged(weight, state)
      weight, state = _step(method, network, tables, problem, phase, weight, state)
      open_ = _collect(weight, state, problem, chance, number)
      weight, state = weight[open_], jax.tree.map(lambda x, keep=open_: x[keep], state)
      if not len(weight):
        break
  return Distribution(chance, number)


def forget_programs():
  """Has all that is jitted here compiled anew: a test has changed, or restored, what it calls."""
  for program in (_begin, _outcomes, _take):
    program.cache_clear()


def _first(method, network, tables, problem, vocab):
  probs, state = _begin(method, network, vocab)(tables, _rows(problem, vocab))
  return np.diagonal(np.asarray(probs)), jax.tree.map(np.asarray, state)


@functools.cache
def _begin(method, network, vocab):
  @jax.jit
  def run(tables, problems):
    seen = []

    def choose(processed, place):
      seen.append(jax.nn.softmax(processed[:, 0], axis=-1))
      return jnp.arange(vocab, dtype=jnp.int32)[:, None]

    state = step_lib.start(network, tables, method, problems, choose)
    return seen[0], state

  return run


def _step(method, network, tables, problem, phase, weight, state):
  vocab, size = network.vocab, phase.drafts
  windows = np.array(list(itertools.product(range(vocab), repeat=size))).reshape(vocab**size, size)
  row = np.repeat(np.arange(len(weight)), len(windows))
  weight, state = weight[row], jax.tree.map(lambda x: x[row], state)
  window = np.tile(windows, (len(weight) // len(windows), 1)).astype(np.int32)
  chance, stop, probs, passed = _chunked(
    _outcomes(method, network, phase, vocab), tables, problem, state, window
  )
  # One row per outcome: the node that the path ends with, and the token that is emitted there.
  joint = (
    (weight * chance)[:, None, None] * stop[:, :, None] * np.where(stop[:, :, None] > 0, probs, 0)
  )
  row, node, token = np.nonzero(joint > 0)
  verdicts = (node + 1).astype(np.int32), token.astype(np.int32)
  before = jax.tree.map(lambda x: x[row], (state, window, passed))
  after = _chunked(_take(network, phase), tables, problem, *before, *verdicts)
  return joint[row, node, token], after


@functools.cache
def _outcomes(method, network, phase, vocab):
  procedure = VERIFIERS[method.verifier].procedure

  @jax.jit
  def run(tables, problem, state, window):
    chance = jnp.ones(window.shape[0])

    def choose(processed, place):
      nonlocal chance
      drafts = window[:, place : place + processed.shape[1]]
      p = jax.nn.softmax(processed, axis=-1)
      chance *= jnp.take_along_axis(p, drafts[:, :, None], axis=2)[:, :, 0].prod(axis=1)
      return drafts

    drafted, processed = step_lib.draft_window(method, problem, state, phase, vocab, choose)
    passed = passes.later_pass(network, tables, problem, state, phase, drafted)
    p = jax.nn.softmax(passed.processed, axis=-1)
    if not phase.drafts:
      return chance, jnp.ones(p.shape[:2]), p, passed
    draft = step_lib.as_draft(problem, state, drafted, processed)
    return chance, *jax.vmap(procedure.outcome)(p, draft), passed

  return run


@functools.cache
def _take(network, phase):
  @jax.jit
  def run(tables, problem, state, window, passed, count, token):
    path = jnp.broadcast_to(jnp.arange(phase.drafts + 1), (len(count), phase.drafts + 1))
    verdict = Verdict(path, count, token)
    return step_lib.apply_verdict(network, tables, problem, state, phase, passed, window, verdict)

  return run


def _chunked(run, tables, problem, *arrays):
  total = len(jax.tree.leaves(arrays)[0])
  problems = _rows(problem, CHUNK)
  parts = []
  for begin in range(0, total, CHUNK):
    index = np.minimum(np.arange(begin, begin + CHUNK), total - 1)
    part = jax.tree.map(lambda x, index=index: np.asarray(x)[index], arrays)
    parts.append(jax.tree.map(np.asarray, run(tables, problems, *part)))
  return jax.tree.map(lambda *x: np.concatenate(x)[:total], *parts)


@functools.partial(jax.jit, static_argnums=1)
def _rows(problem, rows):
  many = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), problem)
  if problem.constraint is None:
    return many
  # The tables of automata are shared by all rows.
  shared = many.constraint.replace(automata=problem.constraint.automata)
  return many.replace(constraint=shared)


def _merged(weight, state):
  """Returns the rows with those merged into one that no later step can tell apart."""
  processed = (
    np.zeros((len(weight), 0)) if state.kept is None else state.kept.reshape(len(weight), -1)
  )
  told = [state.token, *(x[:, None] for x in (state.count, state.pending, state.forwards))]
  # The cache counts too: two histories of one text must stay apart if their caches differ.
  length = state.cache.length[:, None]
  there = np.arange(state.cache.position.shape[1]) < length
  told += [length, np.where(there, state.cache.position, -1)]
  for x in state.cache.layers[0]:
    told.append(np.where(there[:, :, None], x[:, 0], 0).reshape(len(weight), -1).round(9))
  told = np.concatenate([*told, np.maximum(processed, -1e9).round(9)], axis=1)
  _, first, group = np.unique(told, axis=0, return_index=True, return_inverse=True)
  sums = np.zeros(len(first))
  np.add.at(sums, group.reshape(-1), weight)
  return sums, jax.tree.map(lambda x: x[first], state)


def _collect(weight, state, problem, chance, number):
  """Counts the finished rows, and returns which are open."""
  total = int(problem.total[0])
  order = np.asarray(problem.order)[0, :total]
  for row in np.flatnonzero(state.count >= total):
    text = tuple(int(x) for x in state.token[row, order])
    passes_ = int(state.forwards[row])
    chance[text] = chance.get(text, 0.0) + weight[row]
    number[passes_] = number.get(passes_, 0.0) + weight[row]
  return state.count < total
