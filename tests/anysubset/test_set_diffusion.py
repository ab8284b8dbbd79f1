"""Set Diffusion: who sees whom, its orders, its loss, and exact drafts in one fixed order."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtjax import frontier
from mtjax.anysubset import fill, log_likelihood, make_canvas
from mtjax.anysubset.canvas import two_stream
from mtjax.anysubset.filling.methods import Fused, SelfDraft, Sequential
from mtjax.anysubset.orders import lattice, staggered_order, staggered_times, targets_in_order
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling
from mtjax.train.losses.set_diffusion import SetDiffusion, set_diffusion_loss
from tests.compiled import forward

V = 3
CONFIG = TransformerConfig(
  vocab_size=V,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=16,
  layers=uniform_layers(2),
  max_position=64,
  predicts="any_subset",
  extra_embeddings=2,
  extra_names=("query", "sink"),
  any_subset_rows="set_diffusion",
)
MODEL = Model(CONFIG)
# Larger weights than those of initialisation, so that entries depend on each other.
PARAMS = jax.tree.map(lambda x: 8 * x if x.ndim == 2 else x, MODEL.init(jax.random.key(1)))
TEXT = np.array([[1, 0, 2, 2, 0, 1]])
IS_TARGET = np.array([[True, False, True, True, False, False]])
SAMPLED = Sampling(temperature=1.0)


def canvas_of(rows=1, text=TEXT, is_target=IS_TARGET):
  return make_canvas(CONFIG, np.repeat(text, rows, axis=0), np.repeat(is_target, rows, axis=0))


def test_context_is_causal_and_a_mask_sees_lower_ranks_and_itself():
  canvas, rank = canvas_of(), np.array([[0, 2, 0, 1, 3, 0, 0]])  # the sink first
  query = jnp.arange(7)[None]
  dense = np.asarray(frontier.as_dense(two_stream(CONFIG, canvas, jnp.asarray(rank), query)))[0]
  context = [0, 2, 5, 6]
  order = [*context, 3, 1, 4]
  for place, i in enumerate(order):
    for other, j in enumerate(order):
      assert dense[i, j] == (other <= place), (i, j)
      assert not dense[i, 7 + j]
      if i not in context:
        assert dense[7 + i, j] == (other < place), (i, j)
        assert dense[7 + i, 7 + j] == (i == j)


def joint(rank):
  """Returns the joint probabilities of the three targets of TEXT, counted in the order's order."""
  texts = list(itertools.product(range(V), repeat=3))
  index = targets_in_order(canvas_of(), rank)[0][0]
  token = np.repeat(np.asarray(canvas_of().token), len(texts), axis=0)
  token[:, index] = texts
  canvas = canvas_of(len(texts)).replace(token=jnp.asarray(token))
  log_p = log_likelihood(MODEL, PARAMS, canvas, rank=np.repeat(rank, 27, axis=0))
  return np.exp(np.sum(log_p, axis=1, dtype=np.float64))


def sequential_joint(rank):
  """Returns what `joint` does, entry by entry with a pass of its own for each conditional."""
  canvas = canvas_of()
  index = targets_in_order(canvas, rank)[0][0]
  whole = [int(i) for i in np.flatnonzero(np.asarray(canvas.is_context[0]))]
  probs = np.ones(27)
  for n, text in enumerate(itertools.product(range(V), repeat=3)):
    token = np.asarray(canvas.token[0]).copy()
    token[index] = text
    for place in range(3):
      seen = [*whole, *index[:place]]
      entries = jnp.asarray([[*(int(token[i]) for i in seen), CONFIG.special_id("query")]])
      position = jnp.asarray([[*seen, index[place]]])
      # A mask after the entries that it sees is the last of a causal text, with other positions.
      one = frontier.causal(entries).replace(position=position)
      logits = forward(MODEL, PARAMS, one).logits[0, -1]
      probs[n] *= float(jax.nn.softmax(logits)[text[place]])
  return probs


RANK = np.array([[0, 2, 0, 1, 3, 0, 0]])


def test_one_pass_reads_all_conditionals_of_an_order():
  one_pass, one_by_one = joint(RANK), sequential_joint(RANK)
  # Two programs of float32: what rounding leaves of them differs from processor to processor.
  np.testing.assert_allclose(one_pass, one_by_one, rtol=1e-4)
  assert one_pass.sum() == pytest.approx(1, abs=1e-5)
  left_to_right = joint(np.asarray(lattice(canvas_of()))).reshape(3, 3, 3).swapaxes(0, 1).ravel()
  assert 0.5 * np.abs(one_pass - left_to_right).sum() > 0.05


def samples(method, rows, rank=RANK):
  index = targets_in_order(canvas_of(), rank)[0][0]
  filled = fill(
    MODEL, PARAMS, canvas_of(rows), method=method, rank=np.repeat(rank, rows, axis=0),
    sampling=SAMPLED, key=1,
  )  # fmt: skip
  return filled.token[:, index] @ np.array([9, 3, 1]), filled


@pytest.mark.parametrize("method", [Sequential(), SelfDraft(3), Fused(2)], ids=str)
def test_drafts_of_masks_are_verified_exactly(method):
  """ASSD on the model's own masks; large enough for a total variation of 0.05."""
  places, filled = samples(method, 8415)
  probs = joint(RANK)
  counts = np.bincount(places, minlength=27)
  assert stats.chisquare(counts, probs / probs.sum() * counts.sum()).pvalue > 1e-6
  assert filled.forwards.max() <= 3


def test_a_set_that_is_decided_without_verification_is_noticed():
  """The masks of one pass are independent: their product is not the joint distribution."""
  first = [np.asarray(x) for x in _marginals()]
  product = np.einsum("i,j,k->ijk", *first).ravel()
  assert 0.5 * np.abs(product - joint(RANK)).sum() > 0.05


def _marginals():
  canvas = canvas_of()
  index = targets_in_order(canvas, RANK)[0][0]
  rank = jnp.asarray((RANK > 0).astype(np.int32))
  out = forward(
    MODEL, PARAMS, two_stream(CONFIG, canvas, rank, jnp.asarray(index)[None]), None,
    7 + jnp.arange(3)[None],
  )  # fmt: skip
  return jax.nn.softmax(out.logits[0], axis=-1)


def test_greedy_text_does_not_depend_on_drafts():
  greedy = [
    fill(MODEL, PARAMS, canvas_of(), method=method, rank=RANK).token
    for method in (Sequential(), SelfDraft(3))
  ]
  np.testing.assert_array_equal(*greedy)


def test_times_have_their_distribution_and_orders_mix_neighbours():
  size, count = 4, 64
  lot = jax.random.exponential(jax.random.key(0), (4000, count))
  number = jnp.broadcast_to(jnp.arange(count), lot.shape)
  time = np.asarray(staggered_times(lot, number, jnp.full((4000, 1), count), size))
  spread, area = 8 / (count + 7), size / (2 * count)
  power = area / (spread - area)
  for i in (0, 31, 63):
    begin = (1 - spread) * (1 - i / 63)
    inside = np.clip((time[:, i] - begin) / spread, 0, 1)
    # P(masked at t) = 1 - (1 - clip((t - loc) / b, 0, 1))^k.
    assert stats.kstest(1 - (1 - inside) ** power, "uniform").pvalue > 1e-4
  canvas = make_canvas(
    dataclasses.replace(CONFIG, max_position=128),
    np.ones((8, count), int),
    np.ones((8, count), bool),
  )
  moved = {}
  for each in (1, 4, 64):
    rank = np.asarray(staggered_order(canvas, jax.random.key(1), each))[:, 1:]
    assert (np.sort(rank, axis=1) == np.arange(1, count + 1)).all()
    moved[each] = np.abs(rank - 1 - np.arange(count)).mean()
  assert moved[1] == 0 and 0.5 < moved[4] < 8 and moved[64] > 10
  alone = jax.tree.map(lambda x: x[3:4], canvas)
  keys = jax.random.split(jax.random.key(1), 8)
  np.testing.assert_array_equal(
    staggered_order(alone, keys[3:4])[0], staggered_order(canvas, keys)[3]
  )


def test_the_loss_is_the_likelihood_in_the_order_of_the_batch():
  loss = set_diffusion_loss(MODEL, SetDiffusion(set_size=2))
  token = jnp.asarray([[0, 1, 2, 0, 1, 1, 2, 0, 0]])
  batch = dict(
    tokens=token,
    segment=jnp.asarray([[1, 1, 1, 1, 1, 2, 2, 2, 0]]),
    position=jnp.asarray([[0, 1, 2, 3, 4, 0, 1, 2, 0]]),
  )
  batch = loss.prepare(batch, jax.random.key(3), 0)
  total = jax.jit(loss.total)(PARAMS, batch)
  assert float(total.weight) == 6
  expected = 0.0
  for first, last in ((0, 5), (5, 8)):
    size = last - first - 1
    canvas = make_canvas(CONFIG, np.asarray(token[:, first + 1 : last]), np.ones((1, size), bool))
    rank = np.asarray(batch["rank"][:, first:last])
    rank = np.argsort(np.argsort(rank, axis=1), axis=1)  # 0 is the sink
    expected -= float(np.sum(log_likelihood(MODEL, PARAMS, canvas, rank=rank)))
  assert float(total.sum) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(any_subset_rows="two_stream"), "needs a model with any_subset_rows 'set_diffusion'"),
    (dict(extra_names=("query",)), "needs a query and a sink embedding"),
  ],
)
def test_models_that_it_cannot_train(change, message):
  with pytest.raises(ValueError, match=message):
    set_diffusion_loss(Model(dataclasses.replace(CONFIG, **change)), SetDiffusion())


def test_settings_out_of_range():
  with pytest.raises(ValueError, match="set_size must be at least 1, got 0"):
    SetDiffusion(set_size=0)
  with pytest.raises(ValueError, match="set_size must be at least 1, got 0"):
    staggered_order(canvas_of(), 0, set_size=0)
  with pytest.raises(ValueError, match="needs a model with predicts 'any_subset'"):
    dataclasses.replace(CONFIG, predicts="masked")
