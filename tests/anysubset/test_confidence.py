"""Confidence-driven orders: their distribution, enumerated; when it is the joint, and when not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax import frontier
from mtjax.anysubset import Confidence, fill, make_canvas, stream
from mtjax.anysubset.filling import confidence
from mtjax.anysubset.orders import lattice, order_of_passes
from mtjax.sampling.logits import Sampling
from mtjax.types import Exactness
from tests.anysubset.set_network import SetNetwork, consistent_tables, row_of
from tests.anysubset.table_network import TableNetwork, conditional, sequential_probs
from tests.anysubset.test_fill_distributions import (
  CONTEXT,
  ORDER,
  TABLES,
  VOCAB,
  distance,
  make_problem,
)
from tests.compiled import forward

CRITERIA = sorted(confidence.CRITERIA)


def emitted(method, network, tables, problem):
  """Returns {tokens, left to right: probability}, every sample of every pass enumerated."""
  with jax.enable_x64(True):
    tables = jax.tree.map(jnp.asarray, tables)
    order = np.asarray(problem.order)[0]
    size = min(method.per_pass, len(order))
    tokens = np.array(list(itertools.product(range(network.vocab), repeat=size)), np.int32)
    problems = jax.tree.map(lambda x: jnp.repeat(x, len(tokens), axis=0), problem)

    def recorded(step):
      def run(*state):
        probs = None

        def choose(logits, index):
          nonlocal probs
          probs = jax.nn.softmax(logits, axis=-1)
          return jnp.asarray(tokens)

        after = step(network, tables, method, problems, *state, choose=choose)
        return after, jnp.take_along_axis(probs, jnp.asarray(tokens)[:, :, None], axis=2)[:, :, 0]

      return jax.jit(run)

    first, later = recorded(confidence.start), recorded(confidence.step)
    out: dict[tuple[int, ...], float] = {}

    def go_on(chance, state, outcomes):
      after, probs = jax.tree.map(np.asarray, outcomes)
      # Samples past a row's last open entry decide nothing: the first of each kind stands for them.
      decided = int(after.count[0]) - (0 if state is None else int(state.count[0]))
      for row in range(0, len(tokens), network.vocab ** (size - decided)):
        chance_of_row = chance * probs[row, :decided].prod()
        one = jax.tree.map(lambda x, row=row: np.repeat(x[row : row + 1], len(tokens), 0), after)
        if one.count[0] == len(order):
          text = tuple(int(x) for x in one.token[0, np.sort(order)])
          out[text] = out.get(text, 0.0) + chance_of_row
        else:
          go_on(chance_of_row, one, later(one))

    go_on(1.0, None, first())
    return out


def reference(tables, context, places, criterion, per_pass):
  """Returns the same distribution by a recursion that knows neither frontiers nor caches."""
  score = confidence.CRITERIA[criterion]
  out = {}

  def go_on(chance, decided):
    done = dict(decided)
    open_ = [i for i in places if i not in done]
    if not open_:
      text = tuple(done[i] for i in places)
      out[text] = out.get(text, 0.0) + chance
      return
    probs_at = {i: conditional(tables, context, decided, i) for i in open_}
    with jax.enable_x64(True):
      sure = {i: float(score(jnp.log(probs))) for i, probs in probs_at.items()}
    best = sorted(open_, key=lambda i: -sure[i])[:per_pass]
    for tokens in itertools.product(range(VOCAB), repeat=len(best)):
      chance_of_tokens = np.prod([probs_at[i][x] for i, x in zip(best, tokens, strict=True)])
      go_on(chance * chance_of_tokens, [*decided, *sorted(zip(best, tokens, strict=True))])

  go_on(1.0, [])
  return out


@pytest.mark.parametrize(
  ("criterion", "per_pass"), [*((c, 1) for c in CRITERIA), ("max_probability", 3)]
)
def test_the_distribution_is_that_of_the_recursion(criterion, per_pass):
  method, network = Confidence(criterion, per_pass), TableNetwork(2, 6)
  probs = emitted(method, network, TABLES, make_problem())
  expected = reference(TABLES, CONTEXT, ORDER, criterion, per_pass)
  assert sum(probs.values()) == pytest.approx(1, abs=1e-12)
  assert distance(probs, expected) < 1e-12
  # These conditionals do not agree, so it is the distribution of no fixed order, as the label says.
  assert distance(probs, sequential_probs(TABLES, CONTEXT, ORDER, VOCAB)) > 0.02
  assert method.exactness is Exactness.APPROXIMATE


def consistent():
  """Returns a joint of three binary tokens, for which LLaDA's ranking was measured (seed 3)."""
  rng = np.random.default_rng(3)
  rng.normal(size=54)
  joint = rng.dirichlet(np.ones(8)).reshape(2, 2, 2)
  return joint, consistent_tables(joint)


def as_dict(joint):
  return {text: float(p) for text, p in np.ndenumerate(joint)}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_with_consistent_conditionals_one_entry_per_pass_keeps_the_joint(criterion):
  joint, tables = consistent()
  problem = make_problem(range(3), {}, 3)
  one = emitted(Confidence(criterion), SetNetwork(2, 3), tables, problem)
  assert distance(one, as_dict(joint)) < 1e-12
  two = emitted(Confidence(criterion, 2), SetNetwork(2, 3), tables, problem)
  assert distance(two, as_dict(joint)) > 0.01, (
    "two entries of one pass are independent of each other"
  )


def test_ranking_by_the_sampled_tokens_probability_changes_the_distribution():
  """`Confidence` does not rank so. 0.29 was computed separately, for the same joint."""
  joint, tables = consistent()
  probs = {}

  def go_on(chance, known):
    open_ = [i for i, x in enumerate(known) if x is None]
    if not open_:
      probs[known] = probs.get(known, 0.0) + chance
      return
    p = [np.exp(tables["logits"][row_of(known, 2), i]) for i in open_]
    p = [x / x.sum() for x in p]
    for tokens in itertools.product(range(2), repeat=len(open_)):
      chances = [x[token] for x, token in zip(p, tokens, strict=True)]
      best = int(np.argmax(chances))
      after = list(known)
      after[open_[best]] = tokens[best]
      go_on(chance * np.prod(chances), tuple(after))

  go_on(1.0, (None,) * 3)
  assert distance(probs, as_dict(joint)) == pytest.approx(0.29, abs=5e-3)


def test_samples_have_the_enumerated_distribution_and_not_the_joint():
  """On the jitted path: a pass decides two entries, and the last pass one."""
  joint, tables = consistent()
  network, method, rows = SetNetwork(2, 3), Confidence(per_pass=2), 8000
  problem = make_problem(range(3), {}, 3)
  canvas = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), problem.canvas)
  filled = fill(network, tables, canvas, method=method, sampling=Sampling(temperature=1.0), key=1)
  counts = np.bincount(filled.token @ [4, 2, 1], minlength=8)
  probs = emitted(method, network, tables, problem)
  expected = np.array([probs[text] for text in itertools.product(range(2), repeat=3)])
  assert stats.chisquare(counts, expected / expected.sum() * rows).pvalue > 1e-6
  assert stats.chisquare(counts, joint.ravel() * rows).pvalue < 1e-6
  np.testing.assert_array_equal(filled.forwards, 2)


@pytest.mark.parametrize("per_pass", [1, 3])
def test_the_cache_is_exact_under_the_order_of_passes(tiny, per_pass):
  """Greedy: every decided token is the argmax of one dense pass over the finished text."""
  model, params = tiny
  rng = np.random.default_rng(3)
  token, is_target = rng.integers(0, 3, (3, 14)), rng.random((3, 14)) < 0.6
  canvas = make_canvas(model.config, token, is_target)
  filled = fill(model, params, canvas, method=Confidence(per_pass=per_pass))
  count = np.asarray(canvas.is_target).sum(axis=1)
  np.testing.assert_array_equal(filled.forwards, -(-count // per_pass))
  assert (filled.token == canvas.token)[np.asarray(canvas.is_context)].all()
  finished = canvas.replace(token=jnp.asarray(filled.token))
  rank = np.asarray(order_of_passes(canvas, filled.decided_at))
  # The query of an entry saw the passes before its own, but not the other entries of its own pass.
  before = np.where(filled.decided_at > 0, (filled.decided_at - 1) * per_pass + 1, 0)
  assert (before <= rank).all()

  def logits_of(rank, seen):
    places = jnp.broadcast_to(jnp.arange(canvas.size), rank.shape)
    contents = frontier.content(
      finished.token,
      finished.position,
      jnp.asarray(rank),
      valid=canvas.is_context | canvas.is_target,
    )
    queries = frontier.query(jnp.full_like(places, 3), finished.position, jnp.asarray(seen))
    both = frontier.concatenate(contents, queries)
    return forward(model, params, both, rows=places + canvas.size).logits

  is_target = np.asarray(canvas.is_target)
  best = np.asarray(logits_of(rank, before)).argmax(axis=2)
  np.testing.assert_array_equal(best[is_target], filled.token[is_target])
  left = np.asarray(lattice(canvas))
  assert (np.asarray(logits_of(left, left)).argmax(axis=2) != filled.token)[is_target].any()


def test_a_row_depends_on_its_own_key_alone(tiny):
  model, params = tiny
  rng = np.random.default_rng(1)
  token, is_target = rng.integers(0, 3, (4, 14)), rng.random((4, 14)) < 0.6
  settings = dict(method=Confidence("entropy", 2), sampling=Sampling(temperature=1.0))
  keys = jax.random.split(jax.random.key(0), 4)
  together = fill(model, params, make_canvas(model.config, token, is_target), key=keys, **settings)
  alone = make_canvas(model.config, token[2:3], is_target[2:3])
  *_, one = stream(model, params, alone, key=keys[2:3], **settings)
  np.testing.assert_array_equal(one.token[0], together.token[2])
  np.testing.assert_array_equal(one.decided_at[0], together.decided_at[2])


def test_refusals(tiny):
  model, params = tiny
  canvas = make_canvas(model.config, np.zeros((1, 3), int), np.array([[True, False, True]]))
  with pytest.raises(ValueError, match="decides the order as it fills"):
    fill(model, params, canvas, method=Confidence(), rank=lattice(canvas))
  with pytest.raises(ValueError, match="one of max_probability, entropy, margin"):
    Confidence("sampled")
  with pytest.raises(ValueError, match="per_pass must be at least 1"):
    Confidence(per_pass=0)
  with pytest.raises(ValueError, match="decided by no pass"):
    order_of_passes(canvas, np.zeros((1, 4), int))
