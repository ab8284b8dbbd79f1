"""Runs that train adapters: what changes, how they continue, and how a causal model begins."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtjax
from mtjax import frontier as frontier_lib
from mtjax import train
from mtjax.diffusion.rows import document_blocks
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.train import config as config_lib
from mtjax.train.export import load_trained, save_trained_adapters
from mtjax.train.losses.block_diffusion import BlockDiffusion, block_diffusion_loss
from mtjax.train.trained import initial_parts
from tests.compiled import forward


def adapted(config, **model):
  config.model.update(layers=2, **model)
  config.lora.update(rank=2, targets=("attention/qkv", "down"))
  config.optimizer.name = "muon"
  return config


@pytest.mark.parametrize("loop", [pytest.param("unrolled", marks=pytest.mark.slow), "scanned"])
def test_a_run_changes_the_adapters_alone_and_continues_bit_by_bit(tmp_path, config, loop):
  adapted(config).model.layer_loop = loop
  state, params = train.train(config, tmp_path / "whole")
  settings = config_lib.read(config)
  before = initial_parts(settings.model, "", settings.lora, seed=settings.seed)
  assert jax.tree.structure(state.params) == jax.tree.structure(before.trained)
  layer = "layer_0" if loop == "unrolled" else "stack_0"
  for path, changes in ((("attention", "qkv"), True), (("mlp", "gate_up"), False)):
    group, name = path
    old, new = before.frozen[layer][group][name]["kernel"], params[layer][group][name]["kernel"]
    assert (np.abs(new - old).max() > 0) == changes, path
  np.testing.assert_array_equal(before.frozen["embedding"]["table"], params["embedding"]["table"])
  small = sum(x.size for x in jax.tree.leaves(state.opt_state))
  assert small < sum(x.size for x in jax.tree.leaves(before.frozen))

  half = config.copy_and_resolve_references()
  half.update(steps=4, decay=0)
  train.run(half, tmp_path / "half")
  again, _ = train.train(config, tmp_path / "half")
  jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
  text, step = load_trained(tmp_path / "whole")
  assert step == config.steps and "layer_1" in text.params
  assert text.generate(["ab"], max_tokens=2)[0][0].prompt == "ab"


def test_frozen_weights_may_be_half_as_wide(tmp_path, config):
  adapted(config).lora.frozen = "bfloat16"
  state, params = train.train(config, tmp_path)
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  settings = config_lib.read(config)
  parts = initial_parts(settings.model, "", settings.lora)
  assert {x.dtype for x in jax.tree.leaves(parts.frozen)} == {jnp.dtype("bfloat16")}


def test_adapters_alone_are_exported_and_loaded_over_their_base(tmp_path, config):
  train.run(config.copy_and_resolve_references(), tmp_path / "base_run")
  text, _ = load_trained(tmp_path / "base_run")
  mtjax.checkpoints.save(tmp_path / "base", text.model, text.params, tokenizer=text.tokenizer)
  config.init = str(tmp_path / "base")
  config.lora.update(rank=2, trained=("extra/table",))
  config.model.update(predicts="masked", alignment="shifted", block_length=4)
  config.model.update(extra_embeddings=1, extra_names=("mask",))
  config.objective = "block_diffusion"
  _, params = train.train(config, tmp_path / "run")
  count = save_trained_adapters(tmp_path / "run", tmp_path / "adapter", "float32")
  found = mtjax.load(str(tmp_path / "adapter"), weights=None)
  assert found.model.config.block_length == 4 and count < 1000
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.params, params)
  # A causal model that was adapted to blocks is decoded over exact keys, by the name of its folder.
  method = mtjax.denoiser("block", length=8, steps=8, transfer="one_by_one")
  runs = [
    found.denoise(["abcd"], method=dataclasses.replace(method, cache=cache))
    for cache in ("exact", "none")
  ]
  assert runs[0][0] == runs[1][0] and runs[0][1].passes.tolist() == [8]
  with pytest.raises(ValueError, match="trains no adapters"):
    save_trained_adapters(tmp_path / "base_run", tmp_path / "other")


def test_runs_older_than_adapters_can_be_continued(config):
  old = config.to_dict()
  del old["lora"]
  assert config_lib.read(old).identity() == config_lib.read(config).identity()


def test_wrong_settings_are_refused(config):
  for fields, message in (
    (dict(rank=-1), "lora.rank must be"),
    (dict(rank=2, frozen="int8"), "lora.frozen must be one of"),
    (dict(rank=2, trained=("extra/table",)), "trained has 'extra/table', which matches none"),
  ):
    other = config.copy_and_resolve_references()
    other.lora.update(**fields)
    with pytest.raises(ValueError, match=message):
      config_lib.read(other)


CAUSAL = Model(
  TransformerConfig(
    vocab_size=7,
    dim=16,
    heads=2,
    kv_heads=1,
    head_dim=8,
    mlp_dim=16,
    layers=uniform_layers(2),
    extra_embeddings=1,
    extra_names=("mask",),
    max_position=64,
  )  # fmt: skip
)
SEGMENT = np.array([[1] * 5 + [2] * 7, [1] * 12], np.int32)


def test_before_the_causal_mask_opens_blocks_begin_as_the_causal_model_continues():
  """And so does every token whose block is clean up to it; a whole open block does not."""
  params = jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, CAUSAL.init(jax.random.key(0)))
  tokens = np.random.default_rng(0).integers(0, 7, SEGMENT.shape)
  position = np.where(SEGMENT == 2, np.arange(12) - 5, np.arange(12))
  causal = frontier_lib.packed(jnp.asarray(tokens), jnp.asarray(SEGMENT))
  expected = np.asarray(jax.jit(CAUSAL.forward)(params, causal).logits)
  noisy = np.where(position % 4 >= 2, 7, tokens)  # two clean tokens, then masks
  found = {}
  for name, is_open in (("closed", np.zeros_like(tokens, bool)), ("open", None)):
    frontier = document_blocks(
      *map(jnp.asarray, (noisy, tokens, SEGMENT)), 4, None if is_open is None else is_open
    )
    found[name] = np.asarray(jax.jit(CAUSAL.forward)(params, frontier).logits)
  np.testing.assert_allclose(found["closed"][:, 12:], expected, atol=1e-4)
  clean = position % 4 < 2
  np.testing.assert_allclose(found["closed"][:, :12][clean], expected[clean], atol=1e-4)
  assert np.abs(found["open"][:, 12:] - expected).max() > 0.1


def test_opening_all_entries_is_block_diffusion():
  tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, SEGMENT.shape))
  rows = tokens, tokens, jnp.asarray(SEGMENT), 4
  opened = frontier_lib.as_dense(document_blocks(*rows, jnp.ones(SEGMENT.shape, bool)))
  np.testing.assert_array_equal(opened, frontier_lib.as_dense(document_blocks(*rows)))


def test_blocks_of_one_cost_what_they_cost_the_causal_model_at_the_first_step():
  """Every token is then the first of its block, and masks are never read: the loss is causal."""
  model = Model(
    dataclasses.replace(CAUSAL.config, predicts="masked", alignment="shifted", block_length=1)
  )
  params = CAUSAL.init(jax.random.key(0))
  settings = BlockDiffusion(schedule="clipped", window=(1.0, 1.0), anneal=10)
  tokens = np.random.default_rng(0).integers(0, 7, SEGMENT.shape)
  position = np.where(SEGMENT == 2, np.arange(12) - 5, np.arange(12))
  batch = dict(tokens=tokens, targets=tokens, segment=SEGMENT, position=position)
  total = block_diffusion_loss(model, settings)(params, batch, jax.random.key(0), 0)
  causal = frontier_lib.packed(jnp.asarray(tokens), jnp.asarray(SEGMENT))
  log_probs = np.asarray(jax.nn.log_softmax(forward(CAUSAL, params, causal).logits))
  rows, places = np.nonzero(position > 0)
  nats = -log_probs[rows, places - 1, tokens[rows, places]].sum()
  assert float(total.weight) == len(rows) and float(total.sum) == pytest.approx(nats, rel=1e-5)
