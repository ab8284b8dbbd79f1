"""Filling on the jitted path: its law by chi-square, its cache against one dense pass, refusals."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax.anysubset import fill, make_canvas, stream
from mtjax.anysubset.canvas import two_stream
from mtjax.anysubset.filling import step as turns
from mtjax.anysubset.filling.methods import ContextNGram, DraftOnce, Fused, SelfDraft, Sequential
from mtjax.anysubset.filling.passes import first_pass, later_pass
from mtjax.anysubset.orders import lattice
from mtjax.bench.systems.assd_uncached import assd_uncached
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling

METHODS = [
  Sequential(),
  SelfDraft(3),
  SelfDraft(3, bonus=False),
  Fused(2),
  DraftOnce(3),
  ContextNGram(3),
  SelfDraft(3, verifier="block"),
]
TEXT = np.array([[1, 0, 2, 2, 0, 1]])
ASKED = np.array([[True, False, True, True, False, False]])
SAMPLED = Sampling(temperature=1.0)


def dense_probs(model, params, canvas):
  """log p [B, L, V] of every asked entry of finished canvases, in one pass; 0 where given."""
  query = jnp.broadcast_to(jnp.arange(canvas.size), canvas.token.shape)
  frontier = two_stream(model.config, canvas, lattice(canvas), query)
  logits = model.forward(params, frontier, rows=query + canvas.size).logits
  return jnp.where(canvas.is_target[:, :, None], jax.nn.log_softmax(logits, axis=-1), 0)


@pytest.fixture(scope="module")
def joint(tiny):
  """The law of the three asked tokens of TEXT, in counting order."""
  model, params = tiny
  texts = list(itertools.product(range(3), repeat=3))
  token = np.repeat(TEXT, len(texts), axis=0)
  token[:, ASKED[0]] = texts
  canvas = make_canvas(model.config, token, np.repeat(ASKED, len(texts), axis=0))
  probs = jax.jit(functools.partial(dense_probs, model))(params, canvas)
  own = jnp.take_along_axis(probs, jnp.minimum(canvas.token, 2)[:, :, None], axis=2)[:, :, 0]
  return np.exp(np.asarray(jnp.sum(own, axis=1), np.float64))


def p_value(tokens, probs):
  places = tokens @ np.array([9, 3, 1])
  counts = np.bincount(places, minlength=27)
  return stats.chisquare(counts, probs / probs.sum() * counts.sum()).pvalue


def sampled(model, params, method, rows, sampling=SAMPLED):
  canvas = make_canvas(model.config, np.repeat(TEXT, rows, axis=0), np.repeat(ASKED, rows, axis=0))
  found = fill(model, params, canvas, method=method, sampling=sampling, key=1)
  return found.token[:, 1:][:, ASKED[0]], found


def check_joint(tiny, joint, method, rows):
  tokens, found = sampled(*tiny, method, rows)
  assert joint.sum() == pytest.approx(1, abs=1e-5)
  assert p_value(tokens, joint) > 1e-6
  assert found.forwards.max() <= 3


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_drawn_has_the_models_joint_law(method, tiny, joint):
  """Large enough for a total variation of 0.05."""
  check_joint(tiny, joint, method, 8415)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_drawn_has_the_models_joint_law_closely(method, tiny, joint):
  """Large enough for 0.0167, the least that one of the common mistakes of verifiers makes."""
  check_joint(tiny, joint, method, 76_000)


def test_drafts_kept_without_a_verifier_are_noticed(tiny, joint, monkeypatch):
  """Each entry from its own marginal: what parallel sampling without an oracle does."""
  true = turns.verify

  def keep_all(verifier, processed, draft, keys, step):
    verdict = true(verifier, processed, draft, keys, step)
    every = jnp.sum(draft.tree.valid, axis=1)
    path = jnp.broadcast_to(jnp.arange(processed.shape[1]), processed.shape[:2])
    return verdict.replace(path=path, count=every)

  monkeypatch.setattr(turns, "verify", keep_all)
  # A window of its own: no other test has compiled it.
  tokens, _ = sampled(*tiny, SelfDraft(5), 8415)
  assert p_value(tokens, joint) < 1e-6


def test_the_uncached_peer_has_the_same_law_and_at_most_a_pass_a_token(tiny, joint):
  model, params = tiny
  canvas = make_canvas(model.config, TEXT, ASKED)
  keys = jax.random.split(jax.random.key(3), 2000)
  found = [assd_uncached(model, params, canvas, window=3, key=key) for key in keys]
  tokens = np.array([one.token[1:][ASKED[0]] for one in found])
  assert p_value(tokens, joint) > 1e-6
  assert max(one.forwards for one in found) <= 3


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_greedy_filling_is_sequential(method, tiny):
  model, params = tiny
  rng = np.random.default_rng(0)
  token, is_target = rng.integers(0, 3, (6, 14)), rng.random((6, 14)) < 0.7
  canvas = make_canvas(model.config, token, is_target)
  found = fill(model, params, canvas, method=method)
  wanted = fill(model, params, canvas, method=Sequential())
  np.testing.assert_array_equal(found.token, wanted.token)
  assert (found.token == canvas.token)[np.asarray(canvas.is_context)].all()
  targets_of = np.asarray(canvas.is_target).sum(axis=1)
  assert (found.forwards <= targets_of).all() and (wanted.forwards == targets_of).all()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_row_depends_on_nothing_else_in_its_batch(method, tiny):
  model, params = tiny
  rng = np.random.default_rng(1)
  token, is_target = rng.integers(0, 3, (4, 14)), rng.random((4, 14)) < 0.6
  keys = jax.random.split(jax.random.key(0), 4)
  settings = dict(method=method, sampling=SAMPLED)
  # Streamed, what comes out is the same as well.
  together = make_canvas(model.config, token, is_target)
  *_, together = stream(model, params, together, key=keys, **settings)
  alone = make_canvas(model.config, token[2:3], is_target[2:3])
  one = fill(model, params, alone, key=keys[2:3], **settings)
  np.testing.assert_array_equal(one.token[0], together.token[2])
  np.testing.assert_array_equal(one.decided_at[0], together.decided_at[2])


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_incremental_commits_give_the_logits_of_one_dense_pass(method, tiny, monkeypatch):
  """Every law that decided an entry, against the finished text in one pass without a cache."""
  model, params = tiny
  rng = np.random.default_rng(2)
  token, is_target = rng.integers(0, 3, (3, 20)), rng.random((3, 20)) < 0.6
  canvas = make_canvas(model.config, token, is_target)
  seen = []

  def recorded(model, params, problem, state, phase, drafted):
    passed = later_pass(model, params, problem, state, phase, drafted)
    jax.debug.callback(
      lambda *x: seen.append([np.asarray(y) for y in x]), passed.processed, state.count
    )
    return passed

  monkeypatch.setattr(turns, "later_pass", recorded)
  # A vocabulary bias of zeros is another program: no other test has compiled it.
  sampling = Sampling(temperature=1.0, logit_bias={0: 0.0})
  found = fill(model, params, canvas, method=method, sampling=sampling, key=5)
  jax.effects_barrier()
  finished = canvas.replace(token=jnp.asarray(found.token))
  dense = np.asarray(dense_probs(model, params, finished))
  compared = 0
  for row in range(3):
    order = np.flatnonzero(np.asarray(canvas.is_target)[row])
    counts = [int(count[row]) for _, count in seen] + [len(order)]
    for (processed, count), after in zip(seen, counts[1:], strict=True):
      for i in range(after - int(count[row])):
        own = jax.nn.log_softmax(processed[row, i])
        np.testing.assert_allclose(own, dense[row, order[int(count[row]) + i]], atol=1e-5)
        compared += 1
  assert compared == int(np.asarray(canvas.is_target).sum()) - 3, "the first pass decides one a row"


def test_the_fill_refuses(tiny):
  model, params = tiny
  canvas = make_canvas(model.config, TEXT, ASKED)
  nothing = make_canvas(model.config, TEXT, np.zeros_like(ASKED))
  refused = [
    (dict(canvas=nothing), "no blank"),
    (dict(rank=lattice(canvas) * 2), "rank is no order"),
    (dict(sampling=Sampling(presence_penalty=1.0)), "order in which tokens come"),
    (
      dict(canvas=canvas.replace(is_context=canvas.is_context | canvas.is_target)),
      "both given and asked",
    ),
    (dict(canvas=canvas.replace(token=canvas.token.at[0, 2].set(3))), "query token"),
  ]
  for change, message in refused:
    with pytest.raises(ValueError, match=message):
      fill(model, params, **{"canvas": canvas, **change})


@pytest.mark.parametrize("given", [2, 20])
def test_the_first_pass_reads_what_is_given_and_no_more(given, tiny, monkeypatch):
  model, params = tiny
  read = []

  def noted(model, params, problem, phase):
    passed = first_pass(model, params, problem, phase)
    read.append(passed.kv[0].k.shape[2])
    return passed

  monkeypatch.setattr(turns, "first_pass", noted)
  is_target = np.arange(60)[None] >= given - 1  # and the sink
  # A window of its own: no other test has compiled it.
  fill(model, params, make_canvas(model.config, np.zeros((1, 60), int), is_target), method=Fused(7))
  assert read == [{2: 16, 20: 24}[given] + 1 + 7]


@pytest.mark.parametrize("make", [SelfDraft, Fused, DraftOnce, ContextNGram])
def test_a_window_below_one_and_a_verifier_of_trees_are_refused(make):
  with pytest.raises(ValueError, match="window must be at least 1"):
    make(0)
  with pytest.raises(ValueError, match="one of .*chain"):
    make(2, verifier="traversal")


@pytest.mark.ill_typed
def test_a_canvas_refuses(tiny):
  config = tiny[0].config
  plain = Model(TransformerConfig(3, 16, 2, 2, 8, 16, uniform_layers(1))).config
  wrong = TEXT.copy()
  wrong[0, 1] = 3
  refused = [
    (plain, TEXT, ASKED, None, "no query embedding"),
    (config, wrong, ASKED, None, "blanks must be asked"),
    (config, TEXT, ASKED[:, 1:], None, "differ"),
    (config, TEXT, ASKED, ~ASKED, "both asked and padding"),
    (config, np.zeros((1, 64), int), np.ones((1, 64), bool), None, "65 entries"),
  ]
  for config, token, is_target, valid, message in refused:
    with pytest.raises(ValueError, match=message):
      make_canvas(config, token, is_target, valid)
