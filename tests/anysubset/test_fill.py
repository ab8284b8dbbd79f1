"""Filling on the jitted path: its distribution by chi-square, its cache, and what it refuses."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy import stats

from mtjax.anysubset import FillMethod, fill, make_canvas, stream
from mtjax.anysubset.canvas import two_stream
from mtjax.anysubset.filling import step as step_lib
from mtjax.anysubset.filling.method import Windowed
from mtjax.anysubset.filling.methods import ContextNGram, DraftOnce, Fused, SelfDraft, Sequential
from mtjax.anysubset.filling.passes import first_pass, later_pass
from mtjax.anysubset.orders import lattice
from mtjax.bench.systems.assd_uncached import assd_uncached
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.registry.methods import filling, get_fill_method
from mtjax.sampling.logits import Sampling, row_keys
from tests.anysubset.fill_methods import lossless_others

METHODS = [
  Sequential(),
  SelfDraft(3),
  SelfDraft(3, bonus=False),
  Fused(2),
  DraftOnce(3),
  ContextNGram(3),
  SelfDraft(3, verifier="block"),
]
METHODS += lossless_others(METHODS)  # one that is new goes through the same proofs
TEXT = np.array([[1, 0, 2, 2, 0, 1]])
IS_TARGET = np.array([[True, False, True, True, False, False]])
SAMPLED = Sampling(temperature=1.0)


@functools.partial(jax.jit, static_argnums=0)
def dense_probs(model, params, canvas):
  """Returns log p [B, L, V] of every target of finished canvases, in one pass; 0 at context."""
  query = jnp.broadcast_to(jnp.arange(canvas.size), canvas.token.shape)
  frontier = two_stream(model.config, canvas, lattice(canvas), query)
  logits = model.forward(params, frontier, rows=query + canvas.size).logits
  return jnp.where(canvas.is_target[:, :, None], jax.nn.log_softmax(logits, axis=-1), 0)


@pytest.fixture(scope="module")
def joint(tiny):
  """Returns the joint probabilities of the three target tokens of TEXT, in counting order."""
  model, params = tiny
  texts = list(itertools.product(range(3), repeat=3))
  token = np.repeat(TEXT, len(texts), axis=0)
  token[:, IS_TARGET[0]] = texts
  canvas = make_canvas(model.config, token, np.repeat(IS_TARGET, len(texts), axis=0))
  probs = dense_probs(model, params, canvas)
  log_p = jnp.take_along_axis(probs, jnp.minimum(canvas.token, 2)[:, :, None], axis=2)[:, :, 0]
  return np.exp(np.asarray(jnp.sum(log_p, axis=1), np.float64))


def p_value(tokens, probs):
  places = tokens @ np.array([9, 3, 1])
  counts = np.bincount(places, minlength=27)
  return stats.chisquare(counts, probs / probs.sum() * counts.sum()).pvalue


def sampled(model, params, method, rows):
  canvas = make_canvas(
    model.config, np.repeat(TEXT, rows, axis=0), np.repeat(IS_TARGET, rows, axis=0)
  )
  filled = fill(model, params, canvas, method=method, sampling=SAMPLED, key=1)
  return filled.token[:, 1:][:, IS_TARGET[0]], filled


@pytest.fixture(scope="module")
def many(tiny):
  """Returns what gives, for a method and a number of rows, what `sampled` does."""
  return functools.cache(functools.partial(sampled, *tiny))


def check_joint(many, joint, method, rows):
  tokens, filled = many(method, rows)
  assert joint.sum() == pytest.approx(1, abs=1e-5)
  assert p_value(tokens, joint) > 1e-6
  assert filled.forwards.max() <= 3


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_samples_have_the_models_joint_distribution(method, many, joint):
  """Large enough for a total variation of 0.05."""
  check_joint(many, joint, method, 8415)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_samples_have_the_models_joint_distribution_closely(method, many, joint):
  """Large enough for 0.0167, the smallest error of the common mistakes of verifiers."""
  check_joint(many, joint, method, 76_000)


def test_drafts_kept_without_a_verifier_are_noticed(tiny, joint, monkeypatch):
  """Each entry has its own marginal, as in parallel sampling without an oracle."""
  true = step_lib.verify

  def keep_all(verifier, processed, draft, keys, step):
    verdict = true(verifier, processed, draft, keys, step)
    every = jnp.sum(draft.tree.valid, axis=1)
    path = jnp.broadcast_to(jnp.arange(processed.shape[1]), processed.shape[:2])
    return verdict.replace(path=path, count=every)

  monkeypatch.setattr(step_lib, "verify", keep_all)
  # A window of its own: no other test has compiled it.
  tokens, _ = sampled(*tiny, SelfDraft(5), 8415)
  assert p_value(tokens, joint) < 1e-6


def test_the_uncached_peer_has_the_same_distribution_and_at_most_one_pass_per_token(tiny, joint):
  model, params = tiny
  canvas = make_canvas(model.config, TEXT, IS_TARGET)
  keys = jax.random.split(jax.random.key(3), 2000)
  results = [assd_uncached(model, params, canvas, window=3, key=key) for key in keys]
  tokens = np.array([one.token[1:][IS_TARGET[0]] for one in results])
  assert p_value(tokens, joint) > 1e-6
  assert max(one.forwards for one in results) <= 3


# Rows of one batch, which a method fills in one program: greedy ones, sampled ones of 14 tokens,
# and the first of those whose joint distribution is compared, with their keys.
GREEDY, LONG, SHORT = slice(0, 6), slice(6, 10), slice(10, 18)
RNG = np.random.default_rng(0)
ROWS = dict(token=RNG.integers(0, 3, (18, 14)), is_target=RNG.random((18, 14)) < 0.7)
ROWS["token"][SHORT, : TEXT.shape[1]] = TEXT
ROWS["is_target"][SHORT] = np.pad(IS_TARGET, ((0, 0), (0, 14 - TEXT.shape[1])))
ROWS["valid"] = np.ones((18, 14), bool)
ROWS["valid"][SHORT, TEXT.shape[1] :] = False
TEMPERATURE = np.where(np.arange(18) < GREEDY.stop, 0.0, 1.0)


@dataclasses.dataclass
class Batch:
  """Fills the batch, streamed; `seen` has the logits and counts that each pass decided by."""

  model: Model
  params: Any
  method: FillMethod
  seen: list = dataclasses.field(default_factory=list)

  def fill(self, order=slice(None)):
    """Returns (the canvas, how it is filled) of the rows in an order."""
    canvas = make_canvas(self.model.config, **{name: x[order] for name, x in ROWS.items()})
    key = jax.random.split(jax.random.key(0), SHORT.start)
    key = jnp.concatenate([key, row_keys(1, SHORT.stop - SHORT.start)])[order]
    sampling = Sampling(temperature=TEMPERATURE[order])
    self.seen.clear()
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(step_lib, "later_pass", self._recorded)
      *_, filled = stream(
        self.model, self.params, canvas, method=self.method, sampling=sampling, key=key
      )
    jax.effects_barrier()
    return canvas, filled

  def _recorded(self, model, params, problem, state, phase, drafted):
    passed = later_pass(model, params, problem, state, phase, drafted)
    jax.debug.callback(
      lambda *x: self.seen.append([np.asarray(y) for y in x]), passed.processed, state.count
    )
    return passed


@pytest.fixture(scope="module")
def batch(tiny):
  """Returns what gives, for a method, (the canvas, how it is filled, what was seen, the batch)."""

  @functools.cache
  def run(method):
    made = Batch(*tiny, method)
    canvas, filled = made.fill()
    return canvas, filled, list(made.seen), made

  return run


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_greedy_filling_is_sequential(method, batch):
  (canvas, filled, *_), (_, expected, *_) = batch(method), batch(Sequential())
  np.testing.assert_array_equal(filled.token[GREEDY], expected.token[GREEDY])
  assert (filled.token == canvas.token)[np.asarray(canvas.is_context)].all()
  num_targets = np.asarray(canvas.is_target).sum(axis=1)
  assert (filled.forwards <= num_targets).all() and (expected.forwards == num_targets).all()


@pytest.mark.parametrize("name", filling())
def test_every_row_of_the_registry_keeps_the_context_and_decides_the_rest(name, tiny, batch):
  """Whatever its exactness is."""
  method = get_fill_method(name).of_window(3)
  if method in METHODS:
    canvas, found, *_ = batch(method)
  else:
    canvas = make_canvas(tiny[0].config, TEXT, IS_TARGET)
    found = fill(*tiny, canvas, method=method, sampling=SAMPLED, key=1)
  is_target, given = np.asarray(canvas.is_target), np.asarray(canvas.is_context)
  assert (found.token == canvas.token)[given].all() and (found.token[is_target] < 3).all()
  assert (found.decided_at[is_target] > 0).all() and not found.decided_at[given].any()
  np.testing.assert_array_equal(found.decided_at.max(axis=1), found.forwards)
  assert (found.forwards <= is_target.sum(axis=1)).all()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_row_depends_on_nothing_else_in_its_batch(method, many, batch):
  _, filled, _, made = batch(method)
  # Streamed, in a batch of another size and beside longer texts.
  _, together = many(method, 8415)
  rows, size = SHORT.stop - SHORT.start, TEXT.shape[1] + 1
  np.testing.assert_array_equal(filled.token[SHORT, :size], together.token[:rows])
  np.testing.assert_array_equal(filled.decided_at[SHORT, :size], together.decided_at[:rows])
  # Each in the place of another, between others.
  order = np.random.default_rng(1).permutation(len(TEMPERATURE))
  _, moved = made.fill(order)
  np.testing.assert_array_equal(moved.token, filled.token[order])
  np.testing.assert_array_equal(moved.decided_at, filled.decided_at[order])


@pytest.mark.parametrize("method", [m for m in METHODS if isinstance(m, Windowed)], ids=str)
def test_incremental_commits_give_the_logits_of_one_dense_pass(method, tiny, batch):
  """Compares all logits that decided an entry with one pass over the finished text, uncached."""
  model, params = tiny
  canvas, filled, seen, _ = batch(method)
  finished = canvas.replace(token=jnp.asarray(filled.token))
  dense = np.asarray(dense_probs(model, params, finished))
  compared = 0
  for row in range(LONG.start, LONG.stop):
    order = np.flatnonzero(np.asarray(canvas.is_target)[row])
    counts = [int(count[row]) for _, count in seen] + [len(order)]
    for (processed, count), after in zip(seen, counts[1:], strict=True):
      for i in range(after - int(count[row])):
        log_probs = scipy.special.log_softmax(processed[row, i])
        np.testing.assert_allclose(log_probs, dense[row, order[int(count[row]) + i]], atol=1e-5)
        compared += 1
  assert compared == int(np.asarray(canvas.is_target)[LONG].sum()) - 4, (
    "the first pass decides one per row"
  )


def test_the_fill_refuses(tiny):
  model, params = tiny
  canvas = make_canvas(model.config, TEXT, IS_TARGET)
  nothing = make_canvas(model.config, TEXT, np.zeros_like(IS_TARGET))
  refused = [
    (dict(canvas=nothing), "no target entry"),
    (dict(rank=lattice(canvas) * 2), "rank is no order"),
    (dict(sampling=Sampling(presence_penalty=1.0)), "takes no penalty: it depends on the order"),
    (
      dict(canvas=canvas.replace(is_context=canvas.is_context | canvas.is_target)),
      "both context and target",
    ),
    (dict(canvas=canvas.replace(token=canvas.token.at[0, 2].set(3))), "query token"),
  ]
  for change, message in refused:
    with pytest.raises(ValueError, match=message):
      fill(model, params, **{"canvas": canvas, **change})


@pytest.mark.parametrize("num_context", [2, 20])
def test_the_first_pass_reads_the_context_and_no_more(num_context, tiny, monkeypatch):
  model, params = tiny
  read = []

  def noted(model, params, problem, phase):
    passed = first_pass(model, params, problem, phase)
    read.append(passed.kv[0].k.shape[2])
    return passed

  monkeypatch.setattr(step_lib, "first_pass", noted)
  is_target = np.arange(60)[None] >= num_context - 1  # and the sink
  # A window of its own: no other test has compiled it.
  canvas = make_canvas(model.config, np.zeros((1, 60), int), is_target)
  next(stream(model, params, canvas, method=Fused(7)))
  assert read == [{2: 16, 20: 24}[num_context] + 1 + 7]


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
    (plain, TEXT, IS_TARGET, None, "no query embedding"),
    (config, wrong, IS_TARGET, None, "blanks must be targets"),
    (config, TEXT, IS_TARGET[:, 1:], None, "must have one shape"),
    (config, TEXT, IS_TARGET, ~IS_TARGET, "both a target and padding"),
    (config, np.zeros((1, 64), int), np.ones((1, 64), bool), None, "65 entries"),
  ]
  for config, token, is_target, valid, message in refused:
    with pytest.raises(ValueError, match=message):
      make_canvas(config, token, is_target, valid)
