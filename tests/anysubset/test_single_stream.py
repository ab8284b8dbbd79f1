"""Any-order models of a single stream: conditioning, density, exact cache, refusals."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax import checkpoints
from mtjax.anysubset import (
  Confidence,
  ContextNGram,
  Fused,
  SelfDraft,
  Sequential,
  fill,
  log_likelihood,
  make_canvas,
)
from mtjax.anysubset.filling import single_stream_step
from mtjax.anysubset.filling.state import Problem
from mtjax.anysubset.likelihood.masked_bound import exact_masked_bound
from mtjax.anysubset.orders import lattice, random_order
from mtjax.anysubset.single_stream import single_stream
from mtjax.frontier import causal, concatenate
from mtjax.models import Model
from mtjax.sampling.logits import Rules, Sampling
from tests.compiled import forward

KINDS = ("added", "adaptive_norm")


@pytest.fixture(scope="module", params=KINDS)
def single(request, tiny):
  """Returns (model, params) of each kind. Modulations are initialised to 0: here they are not 0."""
  model = Model(dataclasses.replace(tiny[0].config, target_conditioning=request.param))
  params = model.init(jax.random.key(0))
  keys = iter(jax.random.split(jax.random.key(1), 100))

  def larger(path, x):
    if "modulation" in str(path) or "target" in str(path):
      return jax.random.normal(next(keys), x.shape) * 0.7
    return x * 4 if x.ndim == 2 else x

  return model, jax.tree_util.tree_map_with_path(larger, params)


def eight(config):
  """Returns a canvas of eight targets after the sink, and a random order."""
  token = np.random.default_rng(0).integers(0, 3, (1, 8))
  canvas = make_canvas(config, token, np.ones((1, 8), bool))
  return canvas, np.concatenate([[0], np.random.default_rng(1).permutation(8) + 1])[None]


def logits_in_order(model, params, canvas, rank):
  """Returns logits [L, V]: entry r of the order predicts the token of rank r + 1."""
  frontier, _ = single_stream(canvas, jnp.asarray(rank))
  logits = forward(model, params, frontier).logits[0]
  return np.asarray(logits)[np.argsort(rank[0])]


def changed(one, other):
  return np.flatnonzero(np.abs(one - other).max(axis=1) > 1e-5).tolist()


def test_which_entries_a_token_and_a_target_change(single):
  """A token changes its entry and all after it; so does a target: entry 6 predicts rank 7."""
  model, params = single
  canvas, rank = eight(model.config)
  base = logits_in_order(model, params, canvas, rank)
  index = int(np.flatnonzero(rank[0] == 6)[0])
  other = canvas.token.at[0, index].set((canvas.token[0, index] + 1) % 3)
  after = logits_in_order(model, params, canvas.replace(token=other), rank)
  assert changed(base, after) == [6, 7, 8]
  swapped = rank.copy()
  swapped[rank == 7], swapped[rank == 8] = 8, 7
  # Entry 6 holds the same token at the same place in both, but has another next position.
  assert changed(base, logits_in_order(model, params, canvas, swapped)) == [6, 7, 8]


def text_and_targets():
  return np.array([[1, 0, 2, 2, 0]]), np.array([[True, False, True, True, False]])


def completions(config):
  token, is_target = text_and_targets()
  texts = np.array(list(itertools.product(range(3), repeat=3)))
  token = np.repeat(token, 27, axis=0)
  token[:, is_target[0]] = texts
  return make_canvas(config, token, np.repeat(is_target, 27, axis=0))


@pytest.mark.parametrize("order", ["lattice", "random"])
def test_the_density_of_all_completions_sums_to_one(single, order):
  model, params = single
  canvas = completions(model.config)
  rank = lattice(canvas)
  if order == "random":
    one = jax.tree.map(lambda x: x[:1], canvas)
    rank = jnp.repeat(random_order(one, jax.random.key(4)), 27, axis=0)
    assert (rank != lattice(canvas)).any()
  log_p = log_likelihood(model, params, canvas, rank)
  assert np.exp(log_p.sum(axis=1)).sum() == pytest.approx(1, abs=1e-5)


def problem_of(canvas, rank):
  order = np.argsort(np.where(np.asarray(canvas.is_target), rank, 99), axis=1)
  total = np.asarray(canvas.is_target).sum(axis=1)
  return Problem(
    canvas,
    jnp.asarray(order[:, : total.max()], jnp.int32),
    jnp.asarray(total, jnp.int32),
    Rules(temperature=jnp.ones(len(total))),
    jax.random.split(jax.random.key(0), len(total)),
  )


def reusing_step(model, params, problem, state, choose):
  """Makes a step, but leaves keys in the cache that were made for the target after the next one."""
  after = single_stream_step.step(model, params, problem, state, choose)
  rows, last = jnp.arange(len(state.count)), problem.order.shape[1] - 1
  another = problem.order[rows, jnp.minimum(state.count + 1, last)]
  other = problem.replace(order=problem.order.at[rows, state.count].set(another))
  drafted = single_stream_step.step(model, params, other, state)
  return after.replace(cache=drafted.cache)


def cached_logits(model, params, problem, step=single_stream_step.step):
  """Returns log p [B, A, V] that each token is sampled from, forced to be the canvas's text."""
  text = jnp.take_along_axis(problem.canvas.token, problem.order, axis=1)

  def recorded(call):
    def run(*state):
      seen = []

      def choose(logits, count):
        seen.append(jax.nn.log_softmax(logits))
        return jnp.take_along_axis(text, jnp.minimum(count, text.shape[1] - 1)[:, None], 1)[:, 0]

      return call(model, params, problem, *state, choose=choose), seen[0]

    return jax.jit(run)

  state, logits = recorded(single_stream_step.start)()
  all_logits, go_on = [logits], recorded(step)
  for _ in range(text.shape[1] - 1):
    state, logits = go_on(state)
    all_logits.append(logits)
  return np.asarray(jnp.stack(all_logits, axis=1))


def test_the_cache_is_exact_in_any_order_and_not_for_another_target(single):
  model, params = single
  rng = np.random.default_rng(2)
  token, is_target = rng.integers(0, 3, (3, 12)), rng.random((3, 12)) < 0.6
  canvas = make_canvas(model.config, token, is_target)
  rank = random_order(canvas, jax.random.key(5))
  problem = problem_of(canvas, rank)
  order = np.asarray(problem.order)
  text = np.take_along_axis(np.asarray(canvas.token), order, axis=1)
  real = np.arange(text.shape[1]) < np.asarray(problem.total)[:, None]
  dense = np.take_along_axis(log_likelihood(model, params, canvas, rank), order, axis=1)

  def error(**changes):
    all_logits = cached_logits(model, params, problem, **changes)
    log_p = np.take_along_axis(all_logits, np.minimum(text, 2)[:, :, None], axis=2)[:, :, 0]
    return np.abs(log_p - dense)[real].max()

  assert error() < 1e-5
  assert error(step=reusing_step) > 1e-2


def test_samples_have_the_joint_distribution(single):
  model, params = single
  token, is_target = text_and_targets()
  canvas = completions(model.config)
  joint = np.exp(log_likelihood(model, params, canvas).sum(axis=1).astype(np.float64))
  rows = 4000
  many = make_canvas(model.config, np.repeat(token, rows, 0), np.repeat(is_target, rows, 0))
  settings = dict(method=Sequential(), sampling=Sampling(temperature=1.0), key=1)
  filled = fill(model, params, many, **settings)
  counts = np.bincount(filled.token[:, 1:][:, is_target[0]] @ [9, 3, 1], minlength=27)
  assert stats.chisquare(counts, joint / joint.sum() * rows).pvalue > 1e-6
  np.testing.assert_array_equal(filled.forwards, 3)
  assert (filled.token == np.asarray(many.token))[np.asarray(many.is_context)].all()


@pytest.mark.parametrize(
  "method", [SelfDraft(2), Fused(2), ContextNGram(2), Confidence()], ids=lambda m: type(m).__name__
)
def test_methods_whose_cache_would_be_wrong_are_refused(method, single):
  model, params = single
  canvas = make_canvas(model.config, *text_and_targets())
  with pytest.raises(ValueError, match="made for its one next position.*Sequential"):
    fill(model, params, canvas, method=method)


def test_refusals(single, tiny):
  model, params = single
  canvas = make_canvas(model.config, *text_and_targets())
  with pytest.raises(ValueError, match="bound of masked diffusion predicts several positions"):
    exact_masked_bound(model, params, canvas)
  alone = canvas.replace(is_context=canvas.is_context & False)
  for call in (log_likelihood, lambda *x: fill(*x, method=Sequential())):
    with pytest.raises(ValueError, match="every text needs a context entry"):
      call(model, params, alone)
  text = causal(jnp.zeros((1, 3), jnp.int32))
  with pytest.raises(ValueError, match="needs Frontier.target, the position that each"):
    model.forward(params, text)
  with pytest.raises(ValueError, match="and no other model takes it"):
    tiny[0].forward(tiny[1], text.replace(target=text.position))
  with pytest.raises(ValueError, match="some of the parts say which position"):
    concatenate(text, text.replace(target=text.position))
  with pytest.raises(ValueError, match="adaptive_norm modulates norms before branches"):
    dataclasses.replace(
      model.config, target_conditioning="adaptive_norm", norm_placement="sandwich"
    )


def test_a_folder_keeps_the_model(single, tmp_path):
  model, params = single
  checkpoints.save(tmp_path, model, params)
  again, loaded = checkpoints.load(tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
