"""Eso-LM (B): the authors' files are read, have their logits, and are filled by their sampler."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax import frontier as frontier_lib
from mtjax.anysubset import Eso, fill, log_likelihood, make_canvas, query_token
from mtjax.anysubset.orders import eso_ranks
from mtjax.checkpoints import families
from mtjax.sampling.logits import row_keys
from tests.checkpoints.diffusion import dit, oracles

TOLERANCE = 1e-4
SIZE = 13
MASK = 49
TEXT = np.where(oracles.TOKENS == MASK, 3, oracles.TOKENS)
# As their class writes it; the script that made the published files gave it hidden_dim, too.
FLAT = dict(
  model_type="EsoLM", architectures=["EsoLM"], cond_dim=6, dropout=0.1, hidden_dim=768,
  hidden_size=16, mask_index=MASK, model_length=32, n_blocks=2, n_heads=2, vocab_size=oracles.VOCAB,
)  # fmt: skip
NESTED = dit.NESTED | dict(
  model_type="esolm", architectures=["EsoLM"], mask_token_id=MASK, alpha_0=0.25, batch_split=0.5,
  backbone_config=dit.BACKBONE | dict(adaln=True), diffusion_attn_mode="causal",
  diffusion_shuffle=True, sequential_attn_mode="causal", sequential_shuffle=True,
)  # fmt: skip


def written(folder, config):
  tensors = oracles.random_tensors(dit.shapes(16, 6, 2))
  oracles.write(folder, config, tensors)
  return tensors


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  folder = tmp_path_factory.mktemp("eso")
  tensors = written(folder, FLAT)
  return tensors, *checkpoints.load(folder)


def diffusion_logits(tensors, token, order):
  """Returns the authors' logits of a sorted text: every entry sees those before it and itself."""
  return dit.logits(tensors, 2, 2, token[order], order, np.tri(len(order), dtype=bool))


def sequential_logits(tensors, text, order):
  """Returns their logits at the masks of z_t beside x_0, BD3-LM's mask with blocks of one token."""
  size = len(order)
  token, position = np.concatenate([np.full(size, MASK), text[order]]), np.tile(order, 2)
  visible = np.zeros((2 * size, 2 * size), bool)
  visible[:size, :size] = np.eye(size)
  visible[:size, size:] = np.tri(size, k=-1)
  visible[size:, size:] = np.tri(size)
  return dit.logits(tensors, 2, 2, token, position, visible)[:size]


def without_mask(logits):
  logits = logits.copy()
  logits[..., MASK] = -np.inf
  return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def test_logits_are_those_of_both_parts_of_the_authors_forward_pass(imported):
  tensors, model, params = imported
  config = model.config
  assert (config.predicts, config.any_subset_rows) == ("any_subset", "eso")
  assert query_token(config) == MASK and config.max_position == 32
  order = np.random.default_rng(1).permutation(SIZE)
  noisy = TEXT[0].copy()
  noisy[order[5:]] = MASK
  expected = diffusion_logits(tensors, noisy, order)
  place, rank = jnp.asarray(order)[None], jnp.arange(SIZE)[None]
  frontier = frontier_lib.content(jnp.asarray(noisy[order])[None], place, rank)
  with jax.default_matmul_precision("highest"):
    found = np.asarray(model.forward(params, frontier).logits)[0]
  assert np.abs(found - expected).max() <= TOLERANCE
  # Negative control: a mask that sees no other mask, as in Set Diffusion, says something else.
  visible = np.tri(SIZE, dtype=bool)
  visible[:, 5:] = np.eye(SIZE, dtype=bool)[:, 5:]
  other = dit.logits(tensors, 2, 2, noisy[order], order, visible)
  assert np.abs(other - expected)[6:].max() > 100 * TOLERANCE
  # The sequential part: log p of all tokens in an order, each at a mask.
  log_p = without_mask(sequential_logits(tensors, TEXT[0], order))
  ranks = np.zeros((1, SIZE), int)
  ranks[0, order] = 1 + np.arange(SIZE)
  canvas = make_canvas(config, TEXT[:1], np.ones((1, SIZE), bool))
  with jax.default_matmul_precision("highest"):
    scored = log_likelihood(model, params, canvas, ranks)[0]
  assert np.abs(scored[order] - log_p[range(SIZE), TEXT[0][order]]).max() <= TOLERANCE


def test_the_sampler_fills_as_the_authors_network_says(imported):
  """Pass by pass: their logits at the masks of a step, after all that was decided before."""
  tensors, model, params = imported
  rows, method = 2, Eso(steps=3, share=0.6)
  is_target = np.stack([np.arange(SIZE) > 2, np.ones(SIZE, bool)])  # one has no context at all
  canvas = make_canvas(model.config, TEXT[:rows], is_target)
  with jax.default_matmul_precision("highest"):
    filled = fill(model, params, canvas, method=method, key=4)
  rank = np.asarray(eso_ranks(canvas, row_keys(4, rows), method.share))
  together = 0
  for row in range(rows):
    decided_at, text = filled.decided_at[row], filled.token[row]
    for number in range(1, decided_at.max() + 1):
      before = np.flatnonzero((decided_at < number) & is_target[row])
      masks = np.flatnonzero(decided_at == number)
      before, masks = (each[np.argsort(rank[row, each])] for each in (before, masks))
      order = np.concatenate([np.flatnonzero(~is_target[row]), before, masks])
      token = text.copy()
      token[masks] = MASK
      logits = without_mask(diffusion_logits(tensors, token, order))[len(order) - len(masks) :]
      np.testing.assert_array_equal(text[masks], logits.argmax(-1))
      together += len(masks) > 1
  assert together > 1 and MASK not in filled.token


def test_both_forms_are_one_network_and_an_export_has_the_authors_form(imported, tmp_path):
  _, model, params = imported
  written(tmp_path / "nested", NESTED)
  other, same = checkpoints.load(tmp_path / "nested")
  assert other == model
  jax.tree.map(np.testing.assert_array_equal, same, params)
  checkpoints.save(tmp_path / "new", model, params)
  raw = json.loads((tmp_path / "new" / "config.json").read_text())
  assert raw["diffusion_attn_mode"] == raw["sequential_attn_mode"] == "causal"
  assert (raw["model_type"], raw["mask_index"], raw["hidden_size"]) == ("EsoLM", MASK, 16)
  again, same = checkpoints.load(tmp_path / "new")
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (NESTED | dict(diffusion_attn_mode="mixed2"), "diffusion_attn_mode 'mixed2' is not supported"),
    (NESTED | dict(sequential_attn_mode="mixed"), "sequential_attn_mode 'mixed' is not supported"),
    (
      {k: v for k, v in NESTED.items() if k != "diffusion_attn_mode"},
      "diffusion_attn_mode 'bidirectional' is not supported, only \\(B\\)",
    ),
    (FLAT | dict(mask_index=50), "mask_id must be a token of the vocabulary, 0..49, got 50"),
    (FLAT | dict(n_heads=3), r"n_heads \(3\) must divide hidden_dim \(16\)"),
  ],
)
def test_other_models_are_refused(config, message):
  with pytest.raises(ValueError, match=message):
    families.read_config(config)


def test_a_file_that_does_not_say_which_one_it_is_is_read_with_a_warning():
  message = "has neither diffusion_attn_mode nor sequential_attn_mode.*read as [(]B[)]"
  with pytest.warns(UserWarning, match=message):
    assert families.read_config(FLAT)[1].any_subset_rows == "eso"
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    families.read_config(FLAT | dict(diffusion_attn_mode="causal", sequential_attn_mode="causal"))
    families.read_config(NESTED)
