"""Diffusion models in their authors' layouts: logits, exports, and what denoising needs to know."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.models import Model
from tests.checkpoints.diffusion import oracles
from tests.compiled import forward

TOLERANCE = 1e-4
SIZE = oracles.TOKENS.shape[1]
ALL = np.ones((SIZE, SIZE), bool)
BLOCK = np.arange(SIZE) // 4
BLOCKS = BLOCK[:, None] >= BLOCK[None]

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)

# Name -> (the causal model of transformers with the same weights, its settings, what differs in
# config.json, who sees whom).
QWENS = {
  "Dream": ("Qwen2", dict(tie_word_embeddings=False), dict(mask_token_id=41), ALL),
  "sdar": ("Qwen3", dict(head_dim=8), dict(mask_token_id=41, block_size=4), BLOCKS),
  "Fast_dLLM_Qwen": (
    "Qwen2",
    dict(tie_word_embeddings=True),
    dict(mask_token_id=41, bd_size=4),
    BLOCKS,
  ),
}
LLADAS = {
  "llada": {},
  "llada, grouped keys": dict(n_kv_heads=2, include_qkv_bias=True),
  "llada, tied": dict(weight_tying=True),
}
CONVENTIONS = {
  "llada": (43, False, 0),
  "Dream": (41, True, 0),
  "sdar": (41, False, 4),
  "Fast_dLLM_Qwen": (41, True, 4),
}


def logits(model, params, token=oracles.TOKENS):
  """Returns logits [B, L, V] with the frontier of the denoising loop."""
  network = MaskedNetwork.of(model)
  end = jnp.full(len(token), token.shape[1])
  with jax.default_matmul_precision("highest"):
    return np.asarray(forward(model, params, network.canvas(jnp.asarray(token), end)).logits)


def llada(folder, **settings):
  """Writes a LLaDA and returns its logits for the texts."""
  config = oracles.LLADA | settings
  tensors = oracles.random_tensors(oracles.llada_shapes(config))
  oracles.write(folder, config, tensors)
  return np.stack([oracles.llada_logits(config, tensors, row) for row in oracles.TOKENS])


@pytest.fixture(scope="module")
def qwens(tmp_path_factory):
  """Returns {name: (folder, logits of transformers)}."""
  out = {}
  for name, (kind, settings, fields, visible) in QWENS.items():
    model = oracles.qwen(kind, **settings)
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    raw |= dict(fields, model_type=name, architectures=["Some"])
    (folder / "config.json").write_text(json.dumps(raw))
    out[name] = folder, oracles.qwen_logits(model, oracles.TOKENS, visible)
  return out


@pytest.mark.parametrize("name", LLADAS)
def test_a_llada_has_the_logits_of_its_authors_forward_pass(tmp_path, name):
  expected = llada(tmp_path, **LLADAS[name])
  model, params = checkpoints.load(tmp_path)
  assert np.abs(logits(model, params) - expected).max() <= TOLERANCE
  network = MaskedNetwork.of(model)
  assert (network.mask_id, network.shifted, network.block_length) == CONVENTIONS["llada"]


@needs_torch
@pytest.mark.parametrize("name", QWENS)
def test_models_that_began_as_qwen_have_the_logits_of_transformers(qwens, name):
  folder, expected = qwens[name]
  model, params = checkpoints.load(folder)
  assert np.abs(logits(model, params) - expected).max() <= TOLERANCE
  network = MaskedNetwork.of(model)
  assert (network.mask_id, network.shifted, network.block_length) == CONVENTIONS[name]


@needs_torch
def test_another_mask_of_attention_is_noticed(qwens):
  folder, expected = qwens["sdar"]
  model, params = checkpoints.load(folder)
  for length in (0, 3, 5):
    other = Model(dataclasses.replace(model.config, block_length=length))
    assert np.abs(logits(other, params) - expected).max() > 100 * TOLERANCE


def check_round_trip(folder, again):
  """Saves what a folder holds and checks that the same numbers have the same names."""
  model, params = checkpoints.load(folder)
  checkpoints.save(again, model, params)
  before = safetensors.load_file(folder / "model.safetensors")
  after = safetensors.load_file(again / "model.safetensors")
  # transformers stores the head of a tied model once, and so do we.
  assert before.keys() == after.keys()
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value, err_msg=name)
  loaded, same = checkpoints.load(again)
  assert loaded == model
  jax.tree.map(np.testing.assert_array_equal, same, params)
  return json.loads((again / "config.json").read_text())


@pytest.mark.parametrize("name", LLADAS)
def test_a_llada_is_saved_as_it_was(tmp_path, name):
  llada(tmp_path / "old", **LLADAS[name])
  raw = check_round_trip(tmp_path / "old", tmp_path / "new")
  assert raw["model_type"] == "llada" and raw["architectures"] == ["LLaDAModelLM"]
  config = oracles.LLADA | LLADAS[name]
  assert {key: raw[key] for key in config} == config


@needs_torch
@pytest.mark.parametrize("name", QWENS)
def test_models_that_began_as_qwen_are_saved_as_they_were(qwens, tmp_path, name):
  raw = check_round_trip(qwens[name][0], tmp_path / "new")
  assert raw["model_type"] == name
  assert {key: raw[key] for key in QWENS[name][2]} == QWENS[name][2]
