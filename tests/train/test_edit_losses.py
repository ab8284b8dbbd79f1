"""The losses of models that edit: drafts and labels per block, values, and what a run learns."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.moves import moved, sources
from mtjax.diffusion.noising.edited_drafts import (
  block_edit_labels,
  block_windows,
  moved_draft,
  random_tokens,
)
from mtjax.models import Model
from mtjax.train.losses.block_diffusion import BlockDiffusion, block_diffusion_loss
from mtjax.train.losses.editing.levenshtein_edits import LevenshteinEdits, levenshtein_edits_loss
from mtjax.train.losses.editing.settings import place_logits
from mtjax.train.losses.editing.token_edits import TokenEdits, token_edits_loss
from mtjax.train.step import init_state, make_step
from tests.diffusion.test_levenshtein import alignments
from tests.train.test_diffusion_losses import MODEL, SEGMENT, batch, documents, model_of, prepared

MASK, DELETE, INSERT = 7, 5, 6
IDS = dict(mask_id=MASK, delete_id=DELETE, insert_id=INSERT)
POSITION = batch()["position"]


@pytest.fixture(scope="module")
def params():
  """Weights that are large enough for tokens to matter."""
  return jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, MODEL.init(jax.random.key(0)))


def blocks(size):
  """Yields (row, first place, last place + 1) of every block of the batch's documents."""
  for row, here, length in documents():
    for begin in range(0, length, size):
      yield row, here[begin], here[0] + min(begin + size, length)


def windows_of(size):
  return block_windows(jnp.asarray(POSITION), jnp.asarray(SEGMENT), size)


def test_drafts_move_within_their_blocks():
  size = 3
  rng = np.random.default_rng(size)
  token = np.where(rng.random(SEGMENT.shape) < 0.2, MASK, rng.integers(0, 5, SEGMENT.shape))
  missing, surplus = rng.random(SEGMENT.shape) < 0.3, rng.random(SEGMENT.shape) < 0.4
  other = rng.integers(10, 90, SEGMENT.shape)
  draft = jax.jit(functools.partial(moved_draft, mask_id=MASK))(
    token, token == MASK, missing, surplus, other, windows_of(size)
  )
  found, masked = np.asarray(draft.token), np.asarray(draft.masked)
  new = 0
  for row, begin, end in blocks(size):
    wanted = []
    for i in range(begin, end):
      if not missing[row, i]:
        wanted += [None, token[row, i]] if surplus[row, i] else [token[row, i]]
    length = end - begin
    own = (wanted + ["end"] * length)[:length]
    for place, one in zip(range(begin, end), own, strict=True):
      assert masked[row, place] == (one == MASK)
      if one is None:
        assert found[row, place] == other[row, place], "a surplus token"
        new += 1
      else:
        assert found[row, place] == (MASK if one == "end" else one)
  assert new > 3


def test_random_tokens_are_all_but_the_excluded_ones():
  for excluded in ((), (0,), (2, 5, 6), (9,)):
    found = set(np.asarray(random_tokens(jax.random.key(0), (400,), 7, excluded)).tolist())
    assert found == set(range(7)) - set(excluded)
  with pytest.raises(ValueError, match="all 2 tokens of the vocabulary are excluded"):
    random_tokens(jax.random.key(0), (3,), 2, (0, 1))


def labels_in_python(draft, target):
  """Returns the labels of every longest common subsequence of two lists, gap by gap."""
  out = []
  for anchors in alignments(draft, [-1 if one == MASK else one for one in target]):
    labels, here, there = [], 0, 0
    for i, j in anchors:
      gap = target[there:j]
      labels += [gap[k] if k < len(gap) else DELETE for k in range(i - here)]
      labels.append(INSERT if len(gap) > i - here else draft[i])
      here, there = i + 1, j + 1
    rest = iter(target[there:])
    out.append(labels + [next(rest, MASK) if one == MASK else DELETE for one in draft[here:]])
  return out


@functools.partial(jax.jit, static_argnums=2)
def labelled(draft, target, size):
  return block_edit_labels(draft, target, windows_of(size), **IDS)


def random_drafts(seed):
  rng = np.random.default_rng(seed)
  draft, target = rng.integers(0, 4, (2, *SEGMENT.shape))
  return np.where(rng.random(SEGMENT.shape) < 0.3, MASK, draft), target


def test_labels_are_those_of_each_block_alone():
  size, whole = 3, 0
  for seed in range(3):
    draft, target = random_drafts(seed)
    label, other = (np.asarray(labelled(draft, target, each)) for each in (size, 10))
    for row, begin, end in blocks(size):
      known = labels_in_python(draft[row, begin:end].tolist(), target[row, begin:end].tolist())
      assert label[row, begin:end].tolist() in known
      whole += other[row, begin:end].tolist() not in known
  assert whole, "negative control: labels of whole documents are others"


@jax.jit
def applied_to(windows, draft, label):
  """Returns the drafts after the edits of their labels."""
  deleted, inserted = label == DELETE, label == INSERT
  token = windows.read(jnp.where(deleted | inserted, draft, label), MASK)
  source = sources(windows.read(deleted, False), windows.read(inserted, False))
  return windows.back(moved(token, source, MASK))


def test_labels_applied_again_and_again_reach_the_text_of_every_block():
  draft, target = random_drafts(5)
  for _ in range(6):
    draft = applied_to(windows_of(3), draft, labelled(draft, target, 3))
  valid = SEGMENT > 0
  np.testing.assert_array_equal(np.asarray(draft)[valid], target[valid])


@functools.partial(jax.jit, static_argnums=0)
def dense(network, params, canvas, end):
  return network.logits(network.model.forward(params, network.canvas(canvas, end)))


def logits_in_python(network, params, noisy, token):
  """Returns the logits at each place: each block of a document alone, after its clean prefix."""
  shift, size = int(network.shifted), network.block_length
  canvases, ends, places = [], [], []
  for row, here, length in documents():
    for begin in range(0, length, size or length):
      end = min(begin + (size or length), length)
      at = here[:end]
      canvas = np.where(np.arange(end) >= begin, noisy[row, at], token[row, at])
      canvases.append(np.pad(canvas, (0, 10 - end)))
      ends.append(end)
      places.append((row, here[begin:end], np.maximum(np.arange(begin, end) - shift, 0)))
  found = np.asarray(dense(network, params, np.array(canvases), np.array(ends)), np.float64)
  out = np.zeros((*token.shape, 7))
  for logits, (row, here, source) in zip(found, places, strict=True):
    out[row, here] = logits[source]
  return out


def nats(logits, label, banned=()):
  logits = logits.copy()
  logits[list(banned)] = -np.inf
  return np.log(np.exp(logits).sum()) - logits[label]


@pytest.mark.parametrize(("size", "alignment"), [(3, "aligned"), (0, "shifted")])
def test_token_edits_add_up_over_masks_and_tokens_and_own_drafts(params, size, alignment):
  model = model_of(alignment=alignment, block_length=size)
  settings = TokenEdits(replaced=0.4, edit_weight=0.7, draft_weight=0.3)
  loss, network = token_edits_loss(model, settings), MaskedNetwork.of(model)
  data = prepared(loss)
  token, noisy, masked = (data[name] for name in ("tokens", "noisy", "masked"))
  one = logits_in_python(network, params, noisy, token)
  two = logits_in_python(network, params, np.where(masked, one.argmax(-1), noisy), token)
  sums, wrong = np.zeros(3), 0
  for row, place in zip(*np.nonzero(data["counts"]), strict=True):
    here, label = (row, place), token[row, place]
    wrong += not masked[here] and noisy[here] != label
    sums[0] += data["each"][here] * masked[here] * nats(one[here], label)
    sums[1] += 0.7 * (not masked[here]) * nats(one[here], label)
    sums[2] += 0.3 * nats(two[here], label)
  total = jax.jit(loss.total)(params, data)
  names = ("loss/mask_to_token", "loss/token_to_token", "loss/own_drafts")
  np.testing.assert_allclose([total.parts[name] for name in names], sums, rtol=1e-4)
  assert float(total.sum) == pytest.approx(sums.sum(), rel=1e-4)
  assert float(total.parts["wrong"]) == wrong > 0 and 0 < float(total.parts["masked"])
  shifted = alignment == "shifted"
  assert float(total.weight) == 18 - 3 * shifted
  assert (data["counts"] & (POSITION == 0)).any() != shifted


def test_without_errors_and_edits_it_is_block_diffusion(params):
  model = model_of(block_length=3)
  loss = token_edits_loss(model, TokenEdits(replaced=0.0, edit_weight=0.0))
  data = prepared(loss)
  plain = jax.jit(block_diffusion_loss(model, BlockDiffusion()).total)(params, data)
  total = jax.jit(loss.total)(params, data)
  assert float(total.sum) == pytest.approx(float(plain.sum), rel=1e-6)
  assert float(total.weight) == float(plain.weight)
  noise = token_edits_loss(model, TokenEdits(replaced=0.9, edit_weight=0.0))
  other = prepared(noise)
  assert (other["masked"] == data["masked"]).all() and (other["noisy"] != data["noisy"]).any()
  assert float(jax.jit(noise.total)(params, other).sum) != pytest.approx(float(plain.sum), rel=1e-4)


def levenshtein(**changes):
  return LevenshteinEdits(**dict(delete_id=DELETE, insert_id=INSERT) | changes)


def words():
  """Rows whose texts have neither DELETE nor INSERT."""
  rows = batch()
  return dict(rows, tokens=rows["tokens"] % 5, targets=rows["targets"] % 5)


def with_all_operations(prepare):
  """Returns the first batch whose tokens are kept, replaced, deleted and inserted before."""
  for seed in range(100):
    data = {k: np.asarray(v) for k, v in prepare(jax.random.key(seed)).items()}
    token, label = data["noisy"], data["label"]
    stands = (token != MASK) & (label != MASK) & (SEGMENT > 0)
    kinds = {
      int(one) if one >= DELETE else int(one == two)
      for one, two in zip(label[stands], token[stands], strict=True)
    }
    if kinds == {DELETE, INSERT, 0, 1}:
      return data
  raise AssertionError("no batch has all four operations")


def test_levenshtein_edits_add_up_over_labels(params):
  model = model_of(block_length=3)
  settings = levenshtein(
    replaced=0.3, missing=0.3, surplus=0.3, edit_weight=0.7, draft_weight=0.3, min_time=0.3,
    window=(1e-3, 0.6), schedule="clipped",
  )  # fmt: skip
  loss, network = levenshtein_edits_loss(model, settings), MaskedNetwork.of(model)
  data = with_all_operations(jax.jit(lambda key: loss.prepare(words(), key, 0)))
  token, noisy, each = (data[name] for name in ("tokens", "noisy", "each"))
  one = logits_in_python(network, params, noisy, token)
  own = one.copy()
  own[..., [DELETE, INSERT]] = -np.inf
  filled = np.where(noisy == MASK, own.argmax(-1), noisy)
  two = logits_in_python(network, params, filled, token)
  sums = np.zeros(3)
  again = np.asarray(labelled(filled, token, 3))
  for row, begin, end in blocks(3):
    here = (row, slice(begin, end))
    assert data["label"][here].tolist() in labels_in_python(
      noisy[here].tolist(), token[here].tolist()
    )
    for place in range(begin, end):
      at, label = (row, place), data["label"][row, place]
      if noisy[at] == MASK and label < DELETE:
        sums[0] += each[at] * nats(one[at], label, (DELETE, INSERT))
      if noisy[at] != MASK and label != MASK:
        sums[1] += 0.7 * nats(one[at], label)
      if again[at] != MASK:
        sums[2] += 0.3 * nats(two[at], again[at])
  total = jax.jit(loss.total)(params, data)
  names = ("loss/mask_to_token", "loss/token_to_token", "loss/own_drafts")
  np.testing.assert_allclose([total.parts[name] for name in names], sums, rtol=1e-4)
  assert float(total.sum) == pytest.approx(sums.sum(), rel=1e-4)
  assert float(total.weight) == 18 and (each[noisy != MASK] == 1).all()
  data = jax.tree.map(jnp.asarray, data)
  grads = jax.jit(jax.grad(lambda p: loss.total(p, data).sum))(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_run_learns_the_edits_of_its_text():
  """After 500 steps of Adam nearly every place of drafts with one error says what it has to."""
  fields = dict(block_length=4, dim=32, mlp_dim=64, learned_positions=8, max_position=8)
  model = Model(dataclasses.replace(MODEL.config, **fields))
  text = np.array([[0, 1, 2, 3, 4, 3, 1, 0]], np.int32)
  rows = dict(tokens=np.repeat(text, 32, 0), targets=np.repeat(text, 32, 0))
  rows |= dict(segment=np.ones_like(rows["tokens"]), weight=np.ones((32, 8), np.float32))
  rows["position"] = np.repeat(np.arange(8, dtype=np.int32)[None], 32, 0)
  settings = levenshtein(replaced=0.05, missing=0.15, surplus=0.1, min_time=0.2)
  loss, optimizer, losses = levenshtein_edits_loss(model, settings), optax.adam(1e-2), []
  state, step = init_state(model, optimizer, seed=0), jax.jit(make_step(loss, optimizer))
  for _ in range(500):
    state, metrics = step(state, rows)
    losses.append(float(metrics["loss"]))
  assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
  firsts = [[0, 1, 2, 3], [0, 4, 2, 3], [0, 1, 3, MASK], [0, 1, 1, 2], [0, MASK, 2, 3]]
  lasts = [[4, 3, 1, 0], [4, 2, 1, 0], [4, 1, 0, MASK], [4, 4, 3, 1], [MASK] * 4]
  draft = jnp.array([one + two for one, two in zip(firsts, lasts, strict=True)])
  place = dict(tokens=jnp.asarray(np.repeat(text, 5, 0)), segment=jnp.ones_like(draft))
  place["position"] = jnp.broadcast_to(jnp.arange(8), draft.shape)
  # At masks neither DELETE nor INSERT counts, as in the decoder.
  logits = np.array(
    jax.jit(place_logits, static_argnums=0)(MaskedNetwork.of(model), state.params, draft, place)
  )
  logits[np.asarray(draft) == MASK, DELETE:] = -np.inf
  right, learned, said = 0, 0, logits.argmax(-1)
  for row, begin in itertools.product(range(5), (0, 4)):
    block, label = draft[row, begin : begin + 4].tolist(), text[0, begin : begin + 4].tolist()
    known, own = labels_in_python(block, label), said[row, begin : begin + 4]
    learned += sum(one != MASK for one in known[0])
    right += max(sum(a == b for a, b in zip(own, labels, strict=True)) for labels in known)
  assert right > 0.85 * learned, (right, learned)


def test_models_and_settings_that_cannot_be_are_refused():
  blocks_model = model_of(block_length=4)
  for make, message in (
    (lambda: token_edits_loss(model_of(extra_names=()), TokenEdits()), "needs a mask"),
    (lambda: levenshtein_edits_loss(MODEL, levenshtein()), "block_length must be at least 1"),
    (
      lambda: levenshtein_edits_loss(model_of(block_length=4, alignment="shifted"), levenshtein()),
      "model.alignment must be 'aligned', got 'shifted'",
    ),
    (lambda: levenshtein_edits_loss(blocks_model, LevenshteinEdits()), "got -1 and -1"),
    (lambda: levenshtein_edits_loss(blocks_model, levenshtein(insert_id=5)), "got 5 and 5"),
    (lambda: levenshtein_edits_loss(blocks_model, levenshtein(insert_id=7)), "vocabulary of 7"),
    (lambda: TokenEdits(replaced=1.5), "replaced must be a probability, within 0 to 1, got 1.5"),
    (lambda: TokenEdits(edit_weight=-1.0), "edit_weight must not be negative, got -1.0"),
    (lambda: LevenshteinEdits(missing=-0.1), "missing must be a probability"),
    (lambda: TokenEdits(min_time=0.0), "min_time must be above 0"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
