"""Folders of diffusion models: refusals, models of our own with masks, and what a config says."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints
from mtjax.checkpoints import families
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.models import Model, TransformerConfig, describe_network, uniform_layers
from tests.checkpoints.diffusion import oracles
from tests.checkpoints.diffusion.published import DREAM_7B, FAST_DLLM_7B, LLADA_8B, SDAR_4B

MASKED = TransformerConfig(
  vocab_size=12,
  dim=16,
  heads=2,
  kv_heads=1,
  head_dim=8,
  mlp_dim=16,
  layers=uniform_layers(1),
  predicts="masked",
  mask_id=11,
)


def replace(config=MASKED, **fields):
  return dataclasses.replace(config, **fields)


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (dict(LLADA_8B, block_type="sequential"), "block_type 'sequential' is not supported, only"),
    (dict(LLADA_8B, alibi=True), "alibi True is not supported, only False"),
    (dict(LLADA_8B, include_bias=True), "include_bias True is not supported"),
    (dict(LLADA_8B, activation_type="swiglu"), "activation 'swiglu' is not one of"),
    (dict(LLADA_8B, embedding_size=126463), "embedding_size .126463. must be at least vocab_size"),
    (dict(LLADA_8B, multi_query_attention=True), "contradicts multi_query_attention .True."),
    (dict(LLADA_8B, n_heads=31, n_kv_heads=31), r"n_heads \(31\) must divide d_model \(4096\)"),
    (dict(LLADA_8B, mask_token_id=126464), "mask_id must be a token of the vocabulary, 0..126463"),
    (dict(LLADA_8B, mask_token_id=None), "no 'mask_token_id', which must be a whole number"),
    (dict(LLADA_8B, mask_token_id="<|mdm_mask|>"), "mask_token_id of config.json must be a whole"),
    (dict(DREAM_7B, use_sliding_window=True, sliding_window=8, max_window_layers=1), "windows"),
    (dict(SDAR_4B, block_size=0), "block_size of config.json must be a whole number from 1"),
    (dict(FAST_DLLM_7B, bd_size=True), "bd_size of config.json must be a whole number from 1"),
    (
      dict(SDAR_4B, model_type="sdar_moe"),
      "model_type 'sdar_moe' .* is not supported; known: .*sd",
    ),
  ],
)
def test_settings_that_the_network_lacks_are_refused(raw, message):
  with pytest.raises(ValueError, match=message):
    families.read_config(raw)


def test_settings_with_one_meaning_are_read_alike():
  config = families.read_config(LLADA_8B)[1]
  without = {key: value for key, value in LLADA_8B.items() if key != "n_kv_heads"}
  for same in (without, dict(LLADA_8B, multi_query_attention=False, bias_for_layer_norm=None)):
    assert families.read_config(same)[1] == config
  assert families.read_config(dict(without, multi_query_attention=True))[1].kv_heads == 1
  ratio = {key: value for key, value in LLADA_8B.items() if key != "mlp_hidden_size"}
  assert families.read_config(dict(ratio, mlp_ratio=3))[1] == config


def test_masks_and_blocks_that_files_leave_to_the_code_are_those_of_the_code():
  raw = {key: value for key, value in SDAR_4B.items() if key != "mask_token_id"}
  assert families.read_config(raw)[1].mask_id == 151669
  with pytest.warns(UserWarning, match="no block_size: blocks of 4 are used"):
    assert (
      families.read_config({k: v for k, v in raw.items() if k != "block_size"})[1].block_length == 4
    )
  assert families.read_config(FAST_DLLM_7B)[1].mask_id == 151665


@pytest.fixture
def folder(tmp_path):
  tensors = oracles.random_tensors(oracles.llada_shapes(oracles.LLADA))
  oracles.write(tmp_path, oracles.LLADA, tensors)
  return tmp_path, tensors


def test_tensors_that_are_not_those_of_the_config_are_named(folder):
  path, tensors = folder
  file, name = path / "model.safetensors", "model.transformer.blocks.1.up_proj.weight"
  safetensors.save_file({k: v for k, v in tensors.items() if k != name}, file)
  with pytest.raises(ValueError, match=rf"\(llada\). missing: {name}"):
    checkpoints.load(path)
  safetensors.save_file(tensors | {name: tensors[name][:, 1:].copy()}, file)
  with pytest.raises(ValueError, match=rf"{name} is \[24, 15\] and must be \[24, 16\]"):
    checkpoints.load(path)
  safetensors.save_file(tensors | {"model.transformer.wpe.weight": tensors[name]}, file)
  with pytest.raises(ValueError, match="unexpected: model.transformer.wpe.weight"):
    checkpoints.load(path)


def test_names_without_the_prefix_of_the_whole_model_are_read(folder):
  path, tensors = folder
  model, params = checkpoints.load(path)
  short = {name.removeprefix("model."): value for name, value in tensors.items()}
  safetensors.save_file(short, path / "model.safetensors")
  again, same = checkpoints.load(path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize(
  ("config", "kind"),
  [
    (MASKED, "llada"),
    (replace(alignment="shifted", qkv_bias=True), "Dream"),
    (replace(qk_norm="head", block_length=4), "sdar"),
    (replace(alignment="shifted", qkv_bias=True, block_length=4), "Fast_dLLM_Qwen"),
    (replace(block_length=4), "mtjax_extended"),
    (replace(alignment="shifted"), "mtjax_extended"),
    (
      replace(mask_id=None, extra_embeddings=1, extra_names=("mask",), block_length=8),
      "mtjax_extended",
    ),
  ],
)
def test_masked_models_are_saved_in_the_format_that_says_everything(tmp_path, config, kind):
  model = Model(config)
  params = jax.tree.map(
    lambda x: np.random.default_rng(x.size).random(x.shape, np.float32), model.shapes()
  )
  checkpoints.save(tmp_path, model, params)
  assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind
  again, same = checkpoints.load(tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)
  assert MaskedNetwork.of(again) == MaskedNetwork(
    model, 12 if config.mask_id is None else 11, config.alignment == "shifted", config.block_length
  )


def test_heads_that_a_dream_cannot_have_are_refused():
  config = replace(alignment="shifted", qkv_bias=True, head_dim=4)
  with pytest.raises(ValueError, match="heads of hidden_size / num_attention_heads, not 4"):
    families.express(config)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(predicts="next_token"), "mask_id is a setting of masked models, .* 'next_token'"),
    (dict(predicts="any_subset", mask_id=None, block_length=2), "block_length is a setting of"),
    (dict(mask_id=12), "mask_id must be a token of the vocabulary, 0..11, got 12"),
    (dict(mask_id=-1), "mask_id must be a token of the vocabulary"),
    (dict(mask_id=True), "mask_id must be a whole number or None, got True"),
    (dict(block_length=-1), "block_length must be a whole number and at least 0"),
    pytest.param(
      dict(alignment="left"),
      "alignment must be one of 'aligned', 'shifted'",
      marks=pytest.mark.ill_typed,
    ),
    (dict(extra_embeddings=1, extra_names=("mask",)), "there are two masks: mask_id 11 and"),
    (dict(head_bias=True), "head_bias is for a model with a head of its own"),
  ],
)
def test_settings_of_masks_that_contradict_the_model_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    replace(**fields)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(mask_id=None), r"no mask: set mask_id .* \(extra_names is \(\)\)"),
    (dict(mask_id=None, predicts="next_token"), "needs a masked model .* predicts 'next_token'"),
  ],
)
def test_a_model_that_does_not_name_its_mask_cannot_denoise(fields, message):
  with pytest.raises(ValueError, match=message):
    MaskedNetwork.of(Model(replace(**fields)))


def test_a_model_says_how_it_denoises():
  config = replace(alignment="shifted", block_length=4)
  assert describe_network(config).endswith("predicts masked, shifted, blocks of 4")
  assert config.special_id("mask") == 11
