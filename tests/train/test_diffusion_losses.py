"""The losses of masked and block diffusion: what each token costs, and who sees whom."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.train import masked_diffusion as masked_config
from mtjax import frontier as frontier_lib
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.rows import document_blocks, document_canvas
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.train import config as config_lib
from mtjax.train.losses.block_diffusion import BlockDiffusion, block_diffusion_loss
from mtjax.train.losses.masked_diffusion import MaskedDiffusion, masked_diffusion_loss
from mtjax.train.losses.uniform_diffusion import UniformDiffusion, uniform_diffusion_loss
from tests.compiled import forward

MODEL = Model(
  TransformerConfig(
    vocab_size=7,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=16,
    layers=uniform_layers(1),
    predicts="masked",
    extra_embeddings=1,
    extra_names=("mask",),
    max_position=64,
  )
)
MASK = 7


def model_of(**changes):
  return Model(dataclasses.replace(MODEL.config, **changes))


SEGMENT = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 0, 0], [1] * 10], np.int32)


@pytest.fixture(scope="module")
def params():
  """Weights that are large enough for tokens to matter."""
  return jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, MODEL.init(jax.random.key(0)))


def batch():
  tokens = np.random.default_rng(0).integers(0, 7, SEGMENT.shape).astype(np.int32)
  position = np.where(SEGMENT == 2, np.arange(10) - 5, np.arange(10)).astype(np.int32)
  return dict(tokens=tokens, targets=tokens, segment=SEGMENT, position=position)


def prepared(loss, step=0):
  return {k: np.asarray(v) for k, v in loss.prepare(batch(), jax.random.key(3), step).items()}


def bd3(document, size):
  """BD3-LM's mask of one row by its formula (2503.09573, its code), within documents."""
  n = len(document)
  position = np.array([i - list(document).index(d) for i, d in enumerate(document)])
  block, twice = np.tile(position // size, 2), np.tile(document, 2)
  clean = np.arange(2 * n) >= n
  bq, bk, cq, ck = block[:, None], block[None], clean[:, None], clean[None]
  seen = ((bq == bk) & (cq == ck)) | ((bq > bk) & ck & ~cq) | ((bq >= bk) & ck & cq)
  return seen & (twice[:, None] == twice[None])


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_blocks_of_documents_have_the_mask_of_bd3(size):
  data = batch()
  noisy = np.full_like(data["tokens"], MASK)
  frontier = document_blocks(*map(jnp.asarray, (noisy, data["tokens"], SEGMENT)), size)
  dense = np.asarray(frontier_lib.as_dense(frontier))
  for row in range(2):
    valid = np.tile(SEGMENT[row] > 0, 2)
    both = valid[:, None] & valid[None]
    np.testing.assert_array_equal(dense[row] & both, bd3(SEGMENT[row], size) & both)
  if size == 1:
    np.testing.assert_array_equal(dense[1, :10], np.hstack([np.eye(10), np.tri(10, k=-1)]))
  if size == 10:
    np.testing.assert_array_equal(dense[1, :10], np.hstack([np.ones((10, 10)), 0 * np.eye(10)]))


def test_a_canvas_opens_from_causal_to_bidirectional():
  token, same = jnp.asarray(batch()["tokens"]), SEGMENT[:, :, None] == SEGMENT[:, None]
  same &= SEGMENT[:, None] > 0
  open_ = np.random.default_rng(1).random(SEGMENT.shape) < 0.5
  for seen in (None, np.zeros_like(open_), open_):
    lower = np.tri(10, dtype=bool)[None] | (True if seen is None else seen[:, None])
    is_open = None if seen is None else jnp.asarray(seen)
    frontier = document_canvas(token, jnp.asarray(SEGMENT), is_open)
    np.testing.assert_array_equal(frontier_lib.as_dense(frontier), same & lower)


def log_probs(params, frontier):
  return np.asarray(jax.nn.log_softmax(forward(MODEL, params, frontier).logits))


def padded(token):
  """Returns a text [1, 12] with more entries behind it: forward passes of all are one program."""
  return jnp.asarray(np.pad(token, (0, 12 - len(token)))[None])


def documents():
  """Yields (row, its places, length) of the batch's documents."""
  for row, document in ((0, 1), (0, 2), (1, 1)):
    here = np.flatnonzero(SEGMENT[row] == document)
    yield row, here, len(here)


@pytest.mark.parametrize("alignment", ["aligned", "shifted"])
def test_masked_loss_is_the_weighted_sum_over_masked_tokens(params, alignment):
  """Every document alone; divided by all tokens that may be masked, not by those that are."""
  loss = masked_diffusion_loss(model_of(alignment=alignment), MaskedDiffusion())
  data, shift = prepared(loss), int(alignment == "shifted")
  nats, count = 0.0, 0
  for row, here, size in documents():
    masked, token = data["masked"][row, here], data["tokens"][row, here]
    text = padded(np.where(masked, MASK, token))
    found = log_probs(params, frontier_lib.bidirectional(text, length=jnp.array([size])))[0]
    assert not (shift and masked[0])
    for i in np.flatnonzero(masked):
      nats -= found[i - shift, token[i]] * data["each"][row, here][i]
    count += size - shift
  total = loss.total(params, data)
  assert 0 < data["masked"].sum() < count == float(total.weight)
  assert float(total.sum) == pytest.approx(nats, rel=1e-5)
  assert float(total.parts["masked"]) == data["masked"].sum()


def test_equal_powers_of_all_tokens_are_a_polynomial_schedule(params, tmp_path):
  np.save(tmp_path / "equal.npy", np.full(7, 2.0))
  np.save(tmp_path / "other.npy", np.linspace(0.5, 2.0, 7))
  shared = masked_diffusion_loss(MODEL, MaskedDiffusion(schedule="polynomial", power=2.0))
  data, sums = prepared(shared), {}
  for name in ("equal", "other"):
    loss = masked_diffusion_loss(MODEL, MaskedDiffusion(powers=str(tmp_path / f"{name}.npy")))
    own = prepared(loss)
    assert (own["masked"] == data["masked"]).all() == (name == "equal")
    sums[name] = float(loss.total(params, {**own, "masked": data["masked"]}).sum)
  assert sums["equal"] == pytest.approx(float(shared.total(params, data).sum), rel=1e-4)
  assert sums["other"] != pytest.approx(sums["equal"], rel=1e-2)


@pytest.mark.parametrize("alignment", ["aligned", "shifted"])
def test_block_loss_is_that_of_each_noisy_block_after_clean_ones(params, alignment):
  """As a decoder computes it: blocks one after the other, on a canvas of blocks so far."""
  model = model_of(alignment=alignment, block_length=3)
  network, loss = MaskedNetwork.of(model), block_diffusion_loss(model, BlockDiffusion())
  data, shift = prepared(loss), int(alignment == "shifted")
  nats, count = 0.0, 0
  for row, here, size in documents():
    token, masked = data["tokens"][row, here], data["masked"][row, here]
    assert not (shift and masked[0])
    for begin in range(0, size, 3):
      block = np.arange(begin, min(begin + 3, size))
      canvas = padded(np.where(masked & (np.arange(size) >= begin), MASK, token))
      seen = log_probs(params, network.canvas(canvas, jnp.array([block[-1] + 1])))[0]
      source = np.asarray(network.sources(jnp.asarray(block)))
      each = data["each"][row, here][block] * masked[block]
      nats -= np.dot(each, seen[source, token[block]])
    count += size - shift
  total = loss.total(params, data)
  assert 0 < data["masked"].sum() < count == float(total.weight)
  assert float(total.sum) == pytest.approx(nats, rel=1e-5)


def test_blocks_of_one_masked_token_are_the_exact_autoregressive_loss(params):
  """Each token is predicted by a mask after its clean prefix, which is causal; window (1, 1)."""
  settings, model = BlockDiffusion(schedule="clipped", window=(1.0, 1.0)), model_of(block_length=1)
  loss = block_diffusion_loss(model, settings)
  total, token = loss.total(params, prepared(loss)), batch()["tokens"]
  nats = 0.0
  for row, document in ((0, 1), (0, 2), (1, 1)):
    text = token[row, SEGMENT[row] == document]
    for i in range(len(text)):
      prefix = padded(np.append(text[:i], MASK))
      nats -= log_probs(params, frontier_lib.causal(prefix))[0, i, text[i]]
  assert float(total.weight) == 18
  assert float(total.sum) == pytest.approx(nats, rel=1e-5)
  half = block_diffusion_loss(model, dataclasses.replace(settings, window=(0.5, 0.5)))
  assert float(half.total(params, prepared(half)).sum) != pytest.approx(nats, rel=1e-3)


def test_every_block_has_its_own_time():
  data = prepared(block_diffusion_loss(model_of(block_length=2), BlockDiffusion()))
  time = 1 / data["each"]  # the linear schedule
  blocks = [time[0, [0, 2, 4, 5, 7]], time[1, ::2]]
  assert (time[1, ::2] == time[1, 1::2]).all() and time[0, 5] == time[0, 6]
  np.testing.assert_allclose(np.diff(np.sort(np.concatenate(blocks))), 0.0999, atol=1e-5)


@pytest.mark.parametrize("noise", ["uniform", "hybrid"])
def test_uniform_noise_is_finite_and_documents_are_apart(params, noise):
  loss = uniform_diffusion_loss(MODEL, UniformDiffusion(noise=noise))
  data = prepared(loss)
  total = loss.total(params, data)
  assert float(total.weight) == 18 and 0 < float(total.sum) < 1000
  alone = dict(data, segment=np.where(SEGMENT == 2, 0, SEGMENT))
  rest = dict(data, segment=np.where(SEGMENT == 2, 2, 0))
  parts = float(loss.total(params, alone).sum + loss.total(params, rest).sum)
  assert float(total.sum) == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("alignment", ["aligned", "shifted"])
def test_half_of_the_rows_end_with_the_end_of_their_texts(alignment):
  """In a shifted model no entry predicts an end, so no row is moved."""
  rows = np.repeat(np.array([[5, 1, 2]], np.int32), 64, axis=0)
  data = dict(tokens=rows, targets=np.roll(rows, -1, axis=1), segment=np.ones_like(rows))
  data["position"] = np.broadcast_to(np.arange(3), rows.shape)
  for make, settings, block in (
    (masked_diffusion_loss, MaskedDiffusion(), 0),
    (block_diffusion_loss, BlockDiffusion(), 2),
  ):
    loss = make(model_of(alignment=alignment, block_length=block), settings)
    found = np.asarray(loss.prepare(data, jax.random.key(0), 0)["tokens"])
    moved = (found == [1, 2, 5]).all(axis=1)
    assert (moved | (found == [5, 1, 2]).all(axis=1)).all()
    assert 20 < moved.sum() < 44 if alignment == "aligned" else not moved.any()


def test_the_mask_opens_over_the_steps():
  loss = masked_diffusion_loss(MODEL, MaskedDiffusion(anneal=100))
  assert not prepared(loss, 0)["open"].any() and prepared(loss, 100)["open"].all()
  assert 0 < prepared(loss, 50)["open"].mean() < 1


def test_a_mask_of_the_vocabulary_in_a_text_is_text():
  """It is never masked, as no logits would predict it, and it costs nothing."""
  model = model_of(mask_id=6, extra_names=(), extra_embeddings=0)
  params = model.init(jax.random.key(0))
  for loss in (
    masked_diffusion_loss(model, MaskedDiffusion()),
    block_diffusion_loss(
      Model(dataclasses.replace(model.config, block_length=2)), BlockDiffusion()
    ),
  ):
    data = prepared(loss)
    word = data["tokens"] == 6
    assert word.any() and not (data["masked"] & word).any()
    total = loss.total(params, data)
    assert (
      np.isfinite(float(total.sum)) and float(total.weight) == 18 - (word & (SEGMENT > 0)).sum()
    )


def test_models_and_settings_that_cannot_be_are_refused():
  bare = model_of(extra_embeddings=0, extra_names=())
  for make in (
    lambda: masked_diffusion_loss(bare, MaskedDiffusion()),
    lambda: block_diffusion_loss(bare, BlockDiffusion()),
    lambda: uniform_diffusion_loss(bare, UniformDiffusion(noise="hybrid")),
  ):
    with pytest.raises(ValueError, match="a diffusion model needs a mask"):
      make()
  blocks, word = model_of(block_length=4), model_of(mask_id=6, extra_names=(), extra_embeddings=0)
  for make, message in (
    (lambda: masked_diffusion_loss(blocks, MaskedDiffusion()), "use 'block_diffusion', or set it"),
    (lambda: block_diffusion_loss(MODEL, BlockDiffusion()), "model.block_length must be at least"),
    (
      lambda: uniform_diffusion_loss(word, UniformDiffusion(noise="hybrid")),
      "a mask that is no token of the vocabulary",
    ),
    (lambda: MaskedDiffusion(anneal=-1), "anneal must not be negative"),
    (lambda: MaskedDiffusion(min_time=0.0), "min_time must be above 0"),
    (lambda: UniformDiffusion(noise="gauss"), "noise must be uniform or hybrid"),
    (lambda: UniformDiffusion(noise="hybrid", share=1.0), "share must be from 0 to below 1"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
  config = masked_config.tiny()
  config.data.eval_sources = ("valid=builtin:tinyshakespeare#split=valid",)
  with pytest.raises(ValueError, match="a masked model is not trained for that"):
    config_lib.read(config.to_dict())
