"""The loss of Eso-LM: its two parts against a slow program, and its bound against all texts."""

import dataclasses
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.anysubset.network import without_mask
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.train.losses.eso import EsoDiffusion, eso_loss
from tests.train.test_diffusion_losses import SEGMENT, batch

MODEL = Model(
  TransformerConfig(
    vocab_size=7,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=16,
    layers=uniform_layers(2),
    predicts="any_subset",
    any_subset_rows="eso",
    extra_embeddings=2,
    extra_names=("query", "sink"),
    max_position=64,
  )  # fmt: skip
)
QUERY, SINK = 7, 8
PARTS = ("loss/sequential", "loss/diffusion")


def weights(model):
  """Weights that are large enough for tokens and their order to matter."""
  return jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, model.init(jax.random.key(0)))


def prepared(loss, rows=None):
  prepare = jax.jit(lambda key: loss.prepare(batch() if rows is None else rows, key, 0))
  return {k: np.asarray(v) for k, v in prepare(jax.random.key(3)).items()}


def in_order(token, position):
  """Returns a frontier of texts whose entries see those before them, at any positions."""
  rank = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
  return frontier_lib.content(jnp.asarray(token), jnp.asarray(position), rank)


def test_both_parts_are_those_of_each_document_in_its_order():
  """A mask of the sequential part is the last entry of a text of its own, which nothing sees."""
  params, loss = weights(MODEL), eso_loss(MODEL, EsoDiffusion(share=0.6))
  data = prepared(loss)
  texts, places, jobs = [], [], []
  for row, number in ((0, 1), (0, 2), (1, 1)):
    here = np.flatnonzero(SEGMENT[row] == number)
    token, rest = data["tokens"][row], here[1:]

    def add(order, masks, entries, job, token=token, here=here):
      tokens = [SINK, *(QUERY if i in masks else token[i] for i in order)]
      texts.append(tokens + [0] * (10 - len(tokens)))
      at = [0, *(i - here[0] for i in order)]
      places.append(at + [0] * (10 - len(at)))
      jobs.append((entries, job))

    order = rest[np.argsort(data["rank"][row, rest])].tolist()
    for place, i in enumerate(order):
      if data["late"][row, i]:
        add(order[: place + 1], {i}, [(place + 1, token[i], 1.0)], 0)
    noisy = rest[np.argsort(data["noisy_rank"][row, rest])].tolist()
    masks = {i for i in noisy if data["masked"][row, i]}
    entries = [(noisy.index(i) + 1, token[i], data["each"][row, i]) for i in masks]
    add(noisy, masks, entries, 1)
  logits = jax.jit(MODEL.forward)(params, in_order(np.array(texts), np.array(places))).logits
  log_p = np.asarray(jax.nn.log_softmax(logits))
  sums = np.zeros(2)
  for one, (entries, job) in zip(log_p, jobs, strict=True):
    sums[job] -= sum(weight * one[place, label] for place, label, weight in entries)
  total = jax.jit(loss.total)(params, data)
  np.testing.assert_allclose([total.parts[name] for name in PARTS], sums, rtol=1e-5)
  assert float(total.sum) == pytest.approx(sums.sum(), rel=1e-5) and (sums > 0).all()
  assert float(total.weight) == 15, "no first entry of a document is a target"


def test_clean_tokens_come_first_at_random_and_late_ones_from_left_to_right():
  size, rows = 6, 1500
  text = dict(tokens=np.ones((rows, size), np.int32), segment=np.ones((rows, size), np.int32))
  text["position"] = np.repeat(np.arange(size, dtype=np.int32)[None], rows, 0)
  data = prepared(eso_loss(MODEL, EsoDiffusion(share=0.3)), text)
  rank, late, masked = (data[name][:, 1:] for name in ("rank", "late", "masked"))
  clean = (~late).sum(axis=1)
  assert ((rank > clean[:, None]) == late).all()
  for row in range(rows):
    assert (np.diff(rank[row, late[row]]) == 1).all()
  assert late.mean() == pytest.approx(0.7, abs=0.02)
  two = rank[clean == 2][:, :]
  firsts = np.array([np.flatnonzero(one == 1)[0] for one in two])
  seconds = np.array([np.flatnonzero(one == 2)[0] for one in two])
  assert 0.4 < (firsts < seconds).mean() < 0.6, "clean tokens have any order"
  order = data["noisy_rank"][:, 1:]
  assert ((order > (~masked).sum(axis=1)[:, None]) == masked).all()
  # alpha at a uniform time has the mean share / 2, and the weight is share / (1 - alpha).
  alpha = 1 - 0.3 / data["each"]
  assert (~masked).mean() == pytest.approx(0.15, abs=0.01)
  assert np.sort(alpha[:, 0]) == pytest.approx(np.linspace(0, 0.3, rows), abs=2e-3)


TOY = Model(
  dataclasses.replace(
    MODEL.config, vocab_size=3, mask_id=2, extra_embeddings=0, extra_names=(), max_position=3
  )
)
SIZE, TOY_MASK = 3, 2
TEXTS = list(itertools.product((0, 1), repeat=SIZE))
ORDERS = list(itertools.permutations(range(SIZE)))


def toy_rows():
  """Returns a prepared row per text, order, and number of clean tokens, in this order."""
  out = []
  for text, order, clean in itertools.product(TEXTS, ORDERS, range(SIZE + 1)):
    rank, noisy_rank = np.zeros(SIZE, int), np.zeros(SIZE, int)
    rank[[*order[:clean], *sorted(order[clean:])]] = 1 + np.arange(SIZE)
    noisy_rank[list(order)] = 1 + np.arange(SIZE)
    late = ~np.isin(np.arange(SIZE), order[:clean])
    row = dict(tokens=np.array(text), segment=np.ones(SIZE, int), position=np.arange(SIZE))
    row |= dict(is_target=np.ones(SIZE, bool), rank=rank, late=late, noisy_rank=noisy_rank)
    out.append(row | dict(masked=late, each=np.ones(SIZE, np.float32)))
  return {name: jnp.asarray(np.stack([row[name] for row in out])[:, None]) for name in out[0]}


def chain_table(params):
  """Returns log p of each token at each mask: [text, order, number of clean tokens, place]."""
  tokens, places = [], []
  for text, order, clean in itertools.product(TEXTS, ORDERS, range(SIZE + 1)):
    tokens.append([text[i] for i in order[:clean]] + [TOY_MASK] * (SIZE - clean))
    places.append(order)
  network = without_mask(TOY)
  frontier = in_order(np.array(tokens), np.array(places))
  log_p = np.asarray(jax.nn.log_softmax(jax.jit(network.forward)(params, frontier).logits))
  return log_p.reshape(len(TEXTS), len(ORDERS), SIZE + 1, SIZE, 3).astype(np.float64)


def exact(table, share):
  """Returns p of every text: each diffused set in every order of coming, then the rest in order.

  Each step of diffusion has new orders of clean tokens and masks; the sequential part has one
  order of what is clean.
  """

  def diffused(t, known, i):
    found = [
      math.exp(table[t, o, len(known), order.index(i), TEXTS[t][i]])
      for o, order in enumerate(ORDERS)
      if set(order[: len(known)]) == set(known)
    ]
    return sum(found) / len(found)

  def sequential(t, order):
    chance = 1.0
    for place in range(len(known), SIZE):
      o = ORDERS.index(order)
      # The mask of this token alone, after all before it in the order.
      chance *= math.exp(table[t, o, place, place, TEXTS[t][order[place]]])
    return chance

  chance = np.zeros(len(TEXTS))
  for t, size in itertools.product(range(len(TEXTS)), range(SIZE + 1)):
    for known in itertools.combinations(range(SIZE), size):
      rest = tuple(i for i in range(SIZE) if i not in known)
      ways = list(itertools.permutations(known))
      first = sum(
        math.prod(diffused(t, way[:k], way[k]) for k in range(size)) for way in ways
      ) / len(ways)
      then = sum(sequential(t, way + rest) for way in ways) / len(ways)
      chance[t] += share**size * (1 - share) ** (SIZE - size) * first * then
  return chance


def mask_weight(masks, share):
  """Returns the integral of m^(masks - 1) (1 - m)^(SIZE - masks) for m from 1 - share to 1."""
  low, out = Fraction(1) - Fraction(share), Fraction(0)
  for k in range(SIZE - masks + 1):
    power = masks + k
    term = Fraction(math.comb(SIZE - masks, k) * (-1) ** k, power)
    out += term * (1 - low**power)
  return float(out)


def bound(parts, share, used=(True, True)):
  """Returns the mean of the loss over all that is left to chance, per text."""
  shape = (len(TEXTS), len(ORDERS), SIZE + 1)
  out = np.zeros(len(TEXTS))
  for clean in range(SIZE + 1):
    ways = math.factorial(clean) * math.factorial(SIZE - clean)
    chance = share**clean * (1 - share) ** (SIZE - clean) / ways
    if used[0] and PARTS[0] in parts:
      out += chance * np.asarray(parts[PARTS[0]]).reshape(shape)[:, :, clean].sum(axis=1)
    if used[1] and PARTS[1] in parts and clean < SIZE:
      each = mask_weight(SIZE - clean, share) / ways
      out += each * np.asarray(parts[PARTS[1]]).reshape(shape)[:, :, clean].sum(axis=1)
  return out


def test_it_bounds_the_exact_likelihood_of_every_text():
  """The parts of a prepared row do not depend on the share, which says how probable the row is."""
  params = weights(TOY)
  table, loss = chain_table(params), eso_loss(TOY, EsoDiffusion(share=0.5))
  parts = jax.jit(jax.vmap(loss.total, in_axes=(None, 0)))(params, toy_rows()).parts
  for share in (0.0, 0.5, 1.0):
    chance = exact(table, share)
    assert chance.sum() == pytest.approx(1, abs=1e-5)
    gap = bound(parts, share) + np.log(chance)
    assert (gap > -1e-5).all()
    if share == 0:
      np.testing.assert_allclose(gap, 0, atol=1e-5)
    else:
      assert gap.max() > 1e-3, "the bound is not the value itself"
    # Negative control: a loss without one of its parts.
    for used in ((True, False), (False, True)):
      low = (bound(parts, share, used) + np.log(chance) < -1e-3).any()
      assert low or share == 1 - used.index(False), "the other part is empty"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_part_alone_and_a_mask_of_the_vocabulary(share):
  rows = batch()
  fields = dict(mask_id=6, extra_embeddings=0, extra_names=(), layers=uniform_layers(1))
  word = Model(dataclasses.replace(MODEL.config, **fields))
  loss = eso_loss(word, EsoDiffusion(share=share))
  data, name = prepared(loss, rows), PARTS[int(share)]
  text_mask = (rows["tokens"] == 6) & (SEGMENT > 0)
  assert text_mask.any() and not (data["is_target"] & text_mask).any()
  data = jax.tree.map(jnp.asarray, data)
  assert 18 - text_mask.sum() == data["is_target"].sum()

  def total(params):
    found = loss.total(params, data)
    return found.sum, found.parts

  (value, parts), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(weights(word))
  assert set(parts) == {name, "masked"} and float(value) == float(parts[name]) > 0
  assert np.isfinite(float(value))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_models_and_settings_that_cannot_be_are_refused():
  def changed(**fields):
    return Model(dataclasses.replace(MODEL.config, **fields))

  for make, message in (
    (lambda: eso_loss(changed(extra_names=()), EsoDiffusion()), "must have 'query', got \\(\\)"),
    (lambda: eso_loss(changed(any_subset_rows="two_stream"), EsoDiffusion()), "any_subset_rows 'e"),
    (lambda: EsoDiffusion(share=1.5), "share must be within 0 to 1, got 1.5"),
    (lambda: EsoDiffusion(min_time=0.7), "min_time must be above 0 and below 0.5, got 0.7"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
