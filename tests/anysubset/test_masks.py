"""Masks as keys: Eso-LM's rows and sampler, Set Diffusion's window, and what is exact in them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax import frontier as frontier_lib
from mtjax.anysubset import Eso, SlidingWindow, fill, make_canvas
from mtjax.anysubset.canvas import draft_entries, query_entries
from mtjax.anysubset.filling import passes
from mtjax.anysubset.filling.methods import DraftOnce, Fused, SelfDraft, Sequential
from mtjax.anysubset.orders import eso_order, eso_ranks, eso_times, get_order
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling, row_keys
from tests.anysubset import enumerate_fill
from tests.anysubset.enumerate_fill import distribution_of
from tests.anysubset.table_network import TableNetwork, random_tables
from tests.anysubset.test_fill_distributions import distance, make_problem
from tests.compiled import Compiled

F = Compiled(frontier_lib)
V, LENGTH = 2, 5
CONTEXT, ORDER = {1: 1}, (3, 0, 4, 2)
TABLES = random_tables(np.random.default_rng(2), V, LENGTH, scale=1.5)


@dataclasses.dataclass(frozen=True)
class MaskTable(TableNetwork):
  """A table network whose queries are masks; to an entry that sees one it is the token V - 1."""

  rows: str = "eso"

  @property
  def config(self):
    return dataclasses.replace(super().config, any_subset_rows=self.rows)


def mask_conditional(decided, position):
  """Returns p of the token at a mask that sees all before it, and itself, written out."""
  seen, contents = 0.0, {}
  for place, token in [*CONTEXT.items(), *decided, (position, V - 1)]:
    seen = seen + TABLES["seen"][place, token]
    contents[place] = TABLES["own"][place, token] + np.tanh(seen)
  logits = TABLES["base"][position] + sum(
    TABLES["read"][position, j] @ content for j, content in contents.items()
  )
  probs = np.exp(logits - logits.max())
  return probs / probs.sum()


def mask_joint():
  out = {}
  for text in itertools.product(range(V), repeat=len(ORDER)):
    decided, chance = [], 1.0
    for place, token in zip(ORDER, text, strict=True):
      chance *= mask_conditional(decided, place)[token]
      decided.append((place, token))
    out[text] = chance
  return out


METHODS = [Sequential(), SelfDraft(3), SelfDraft(4, bonus=False), Fused(2), DraftOnce(3)]
# One method with drafts is enough to show that of Set Diffusion's rows.
CASES = [*(("eso", method) for method in METHODS), ("set_diffusion", SelfDraft(3))]


@pytest.mark.parametrize(("rows", "method"), CASES, ids=str)
def test_drafts_of_masks_keep_the_distribution_of_one_order(rows, method):
  """Whatever masks see of each other in a draft: they are verified by masks that see none."""
  network = MaskTable(V, LENGTH, rows)
  distribution = distribution_of(method, network, TABLES, make_problem(ORDER, CONTEXT, LENGTH))
  assert distance(distribution.chance, mask_joint()) < 1e-12
  assert max(distribution.passes) <= len(ORDER)


def test_the_enumeration_notices_masks_that_are_keys_of_the_verification(monkeypatch):
  enumerate_fill.forget_programs()

  def keys(model, problem, index, rank):
    queries = query_entries(model.config, passes._position(problem, index), rank)
    return queries.replace(hi=jnp.full_like(queries.hi, 10_000))

  monkeypatch.setattr(passes, "_queries", keys)
  network = MaskTable(V, LENGTH)
  problem = make_problem(ORDER, CONTEXT, LENGTH)
  assert distance(distribution_of(Fused(2), network, TABLES, problem).chance, mask_joint()) > 1e-3
  enumerate_fill.forget_programs()


def test_a_mask_of_a_chain_sees_what_is_clean_and_the_masks_before_it():
  token = jnp.zeros((1, 3), jnp.int32)
  clean = F.content(token, jnp.array([[4, 0, 2]]), jnp.array([[0, 1, 2]]))
  valid = jnp.array([[True, False, True]])
  masks = F.mask_chain(token, jnp.array([[1, 5, 3]]), jnp.full((1, 3), 3), valid=valid)
  dense = np.asarray(F.as_dense(F.concatenate(clean, masks)))[0]
  expected = np.tri(6, dtype=bool)
  expected[5, 4] = False  # no mask
  np.testing.assert_array_equal(dense, expected)


def model_of(rows):
  config = TransformerConfig(
    vocab_size=5, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(2),
    max_position=64, predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"),
    any_subset_rows=rows,
  )  # fmt: skip
  model = Model(config)
  return model, jax.tree.map(lambda x: 4 * x if x.ndim == 2 else x, model.init(jax.random.key(1)))


ROWS, TEXT = 2, np.array([[1, 0, 2, 2, 0, 1, 3, 4, 1, 2, 0, 3]])
TARGETS = np.isin(np.arange(12), (0, 2, 3, 5, 6, 7, 8, 10))


def canvas_of(config, rows=ROWS):
  return make_canvas(config, np.repeat(TEXT, rows, 0), np.repeat(TARGETS[None], rows, 0))


def order_within(method, canvas, key):
  """Returns by what the entries of one pass are ordered."""
  if isinstance(method, Eso):
    return np.asarray(eso_ranks(canvas, row_keys(key, canvas.token.shape[0]), method.share))
  return np.broadcast_to(np.arange(canvas.size), canvas.token.shape)


def computed_at_once(model, params, canvas, filled, row, number, within, sign=1):
  """Returns log p at the masks that pass `number` decided, without a cache; and these entries.

  `sign` -1: as if entries had been decided in another order.
  """
  decided_at = filled.decided_at[row]
  before = [i for i in range(canvas.size) if 0 < decided_at[i] < number]
  before.sort(key=lambda i: (sign * decided_at[i], within[row, i]))
  context = np.flatnonzero(np.asarray(canvas.is_context[row])).tolist()
  known = [*context, *before]
  masks = sorted(np.flatnonzero(decided_at == number).tolist(), key=lambda i: within[row, i])
  # Of one size, whatever the pass: one program.
  places, queries = (np.resize(x, (1, canvas.size)) for x in (known, masks))
  token = filled.token[row][places]
  log_p = _log_probs_at_masks(model, params, token, places, len(known), queries, len(masks))
  return np.asarray(log_p)[: len(masks)], masks


@functools.partial(jax.jit, static_argnums=0)
def _log_probs_at_masks(model, params, token, places, known, queries, masks):
  """Returns log p [L, V] at the first `masks` queries, which see the first `known` entries."""
  index = jnp.arange(places.shape[1])[None]
  clean = frontier_lib.content(token, places, index, valid=index < known)
  rank = jnp.full_like(queries, known)
  queries = draft_entries(model.config, queries, rank, valid=index < masks)
  output = model.forward(params, frontier_lib.concatenate(clean, queries))
  return jax.nn.log_softmax(output.logits[0, places.shape[1] :])


@pytest.mark.parametrize(
  ("rows", "method"), [("eso", Eso(3, 0.75)), ("set_diffusion", SlidingWindow(4, 0.2))]
)
def test_cached_passes_are_those_computed_at_once(rows, method):
  model, params = model_of(rows)
  canvas = canvas_of(model.config)
  filled = fill(
    model, params, canvas, method=method, sampling=Sampling(temperature=1.0), key=4, history=True
  )
  within, seen = order_within(method, canvas, 4), 0
  for row in range(ROWS):
    for record in (record.rows[row] for record in filled.history):
      for one in record or ():
        log_p, masks = computed_at_once(model, params, canvas, filled, row, one.number, within)
        found = dict(zip(one.entries, one.log_probs, strict=True))
        assert sorted(found) == sorted(masks)
        for place, entry in enumerate(masks):
          assert found[entry] == pytest.approx(log_p[place, filled.token[row, entry]], abs=1e-4)
        seen += len(masks) > 1
  last = filled.decided_at[0].max()
  same, other = (
    computed_at_once(model, params, canvas, filled, 0, last, within, sign)[0] for sign in (1, -1)
  )
  assert np.abs(same - other).max() > 1e-2
  assert seen > 1 and (filled.decided_at > 0).sum() == ROWS * TARGETS.sum()


def test_eso_takes_a_pass_per_step_that_is_not_empty_and_one_per_entry_that_is_left():
  method = Eso(4, 0.6)
  model, params = model_of("eso")
  rows = 16
  canvas = canvas_of(model.config, rows)
  filled = fill(model, params, canvas, method=method, key=2)
  time = np.asarray(eso_times(canvas, row_keys(2, rows)))
  is_target = np.asarray(canvas.is_target)
  for row in range(rows):
    own = time[row, is_target[row]]
    steps = {int(t / method.share * method.steps) for t in own[own < method.share]}
    assert filled.forwards[row] == len(steps) + (own >= method.share).sum()
    late = np.flatnonzero(is_target[row] & (time[row] >= method.share))
    assert (np.diff(filled.decided_at[row, late]) == 1).all()
  assert filled.counters["forwards"] == filled.forwards.sum()


def test_times_are_the_chain_of_binomials():
  """Three targets, two steps, share 0.8: numbers per step by the paper's chain."""
  model, _ = model_of("eso")
  rows, steps, share = 6000, 2, 0.8
  is_target = np.repeat(np.array([[False, True, True, True]]), rows, 0)
  canvas = make_canvas(model.config, np.ones((rows, 4), int), is_target)
  time = np.asarray(eso_times(canvas, row_keys(9, rows)))[:, 2:]
  found = {}
  for one in np.stack([(time < 0.4).sum(1), ((time >= 0.4) & (time < 0.8)).sum(1)], 1).tolist():
    found[tuple(one)] = found.get(tuple(one), 0) + 1
  alpha = [share * (1 - t) for t in (1.0, 0.5, 0.0)]
  expected = {}
  for first in range(4):
    for second in range(4 - first):
      p = [(alpha[i + 1] - alpha[i]) / (1 - alpha[i]) for i in range(steps)]
      chance = stats.binom.pmf(first, 3, p[0]) * stats.binom.pmf(second, 3 - first, p[1])
      expected[first, second] = chance * rows
  counts = [found.get(one, 0) for one in expected]
  assert stats.chisquare(counts, list(expected.values())).pvalue > 1e-4
  ranks = np.asarray(eso_order(canvas, 9, share))[:, 2:]
  assert (np.sort(ranks, axis=1) == [1, 2, 3]).all()
  early = (time < share).all(axis=1)
  orders = np.unique(ranks[early], axis=0, return_counts=True)[1]
  assert len(orders) == 6 and stats.chisquare(orders).pvalue > 1e-4
  late = (time >= share).all(axis=1)
  assert (ranks[late] == [1, 2, 3]).all() and late.sum() > 10
  np.testing.assert_array_equal(get_order("eso", canvas, 9), eso_order(canvas, 9, 0.5))


def test_the_window_slides_and_decides_what_is_sure():
  model, params = model_of("set_diffusion")
  canvas = canvas_of(model.config, 1)
  one_by_one = fill(model, params, canvas, method=SlidingWindow(1, 1.0))
  sequential = fill(model, params, canvas, method=Sequential())
  np.testing.assert_array_equal(one_by_one.token, sequential.token)
  places = np.flatnonzero(np.asarray(canvas.is_target[0]))
  size = 4
  filled = fill(model, params, canvas, method=SlidingWindow(size, 0.3))
  decided_at = filled.decided_at[0]
  for number in range(1, decided_at.max() + 1):
    open_ = [i for i in places if decided_at[i] >= number]
    window = [i for i in open_ if i < open_[0] + size]
    mine = [i for i in places if decided_at[i] == number]
    assert mine and set(mine) <= set(window)
  everything = fill(model, params, canvas, method=SlidingWindow(16, 1e-9))
  assert everything.forwards.tolist() == [1]


def test_a_row_does_not_depend_on_its_batch():
  for rows, method in (("eso", Eso(3, 0.75)), ("set_diffusion", SlidingWindow(4, 0.5))):
    model, params = model_of(rows)
    settings = dict(method=method, sampling=Sampling(temperature=1.0))
    keys = row_keys(1, ROWS + 1)
    together = fill(model, params, canvas_of(model.config), key=keys[:2], **settings)
    # In another place, beside another text.
    token, is_target = np.stack([TEXT[0], 4 - TEXT[0]]), np.stack([TARGETS, ~TARGETS])
    apart = make_canvas(model.config, token, is_target)
    own = fill(model, params, apart, key=keys[1:], **settings)
    np.testing.assert_array_equal(own.token[0], together.token[1])
    np.testing.assert_array_equal(own.decided_at[0], together.decided_at[1])


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Eso(steps=0), "steps must be at least 1, got 0"),
    (lambda: Eso(share=1.5), "share must be within 0 to 1, got 1.5"),
    (lambda: eso_order(canvas_of(model_of("eso")[0].config), 0, -0.1), "share must be within 0"),
    (lambda: SlidingWindow(size=0), "size must be at least 1, got 0"),
    (lambda: SlidingWindow(threshold=0.0), "threshold must be above 0, at most 1: got 0.0"),
    (
      lambda: dataclasses.replace(model_of("eso")[0].config, predicts="masked"),
      "any_subset_rows 'eso' needs a model with predicts 'any_subset'",
    ),
  ],
)
def test_settings_out_of_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()
