"""Adapters in peft's files: their names, their formula against transformers, what is refused."""

import json

import jax
import numpy as np
import pytest

import mtjax
from mtjax import checkpoints, frontier
from mtjax.checkpoints.adapters import load_adapters, save_adapters
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.models.lora import LoraConfig, init_lora, merge_lora, with_lora
from tests import tiny_model

CONFIG = dict(
  vocab_size=40, dim=24, heads=4, kv_heads=2, head_dim=8, mlp_dim=20, layers=uniform_layers(2)
)
MODEL = Model(TransformerConfig(tied=False, norm_eps=1e-5, **CONFIG))
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 6))


def logits(model, params):
  return np.asarray(jax.jit(model.forward)(params, frontier.causal(TOKENS)).logits)


def write_peft(folder, **settings):
  """Writes adapters of q, v (rank 2, each with its own A) and down, as peft names them."""
  safetensors = pytest.importorskip("safetensors.numpy")
  rng, out = np.random.default_rng(1), {}
  for layer in range(2):
    for module, inputs, outputs in (
      ("self_attn.q_proj", 24, 32), ("self_attn.v_proj", 24, 16), ("mlp.down_proj", 20, 24),
    ):  # fmt: skip
      name = f"base_model.model.model.layers.{layer}.{module}"
      out[f"{name}.lora_A.weight"] = rng.standard_normal((2, inputs)).astype(np.float32)
      out[f"{name}.lora_B.weight"] = rng.standard_normal((outputs, 2)).astype(np.float32)
  folder.mkdir(exist_ok=True)
  safetensors.save_file(out, str(folder / "adapter_model.safetensors"))
  config = dict(peft_type="LORA", r=2, lora_alpha=3, bias="none", **settings)
  (folder / "adapter_config.json").write_text(json.dumps(config))
  return out


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_of_peft_gives_the_logits_of_merged_weights_in_transformers(tmp_path, rslora):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  params = MODEL.init(jax.random.key(0))
  checkpoints.save(tmp_path / "base", MODEL, params)
  stored = write_peft(tmp_path / "adapter", use_rslora=rslora)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
  scale = 3 / 2**0.5 if rslora else 3 / 2
  weights = dict(theirs.named_parameters())
  with torch.no_grad():
    for name, a in stored.items():
      if "lora_A" in name:
        b = stored[name.replace("lora_A", "lora_B")]
        own = name.removeprefix("base_model.model.").replace("lora_A.", "")
        weights[own] += scale * torch.from_numpy(b @ a)
    expected = theirs(torch.from_numpy(TOKENS)).logits.numpy()
  config, adapters = load_adapters(tmp_path / "adapter", MODEL.config)
  assert config == MODEL.config
  assert adapters["layer_0"]["attention"]["qkv"]["lora_a"].shape == (24, 4)
  found = logits(MODEL, with_lora(params, adapters))
  np.testing.assert_allclose(found, expected, atol=1e-4)
  assert np.abs(logits(MODEL, params) - expected).max() > 0.1


def test_adapters_come_back_as_they_were_saved(tmp_path):
  """The fused maps share their A, which is found again; the scale is then in B."""
  params = MODEL.init(jax.random.key(0))
  adapters = init_lora(LoraConfig(rank=2), params, jax.random.key(1))
  rng = np.random.default_rng(0)
  adapters = jax.tree.map(lambda x: np.float32(x + rng.standard_normal(x.shape)), adapters)
  save_adapters(tmp_path, MODEL.config, adapters, base="base", scale=1.5, dtype="float32")
  _, found = load_adapters(tmp_path, MODEL.config)
  assert jax.tree.structure(found) == jax.tree.structure(adapters)
  expected = with_lora(params, adapters, 1.5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), with_lora(params, found), expected
  )
  settings = json.loads((tmp_path / "adapter_config.json").read_text())
  assert settings["r"] == 2 and settings["lora_alpha"] == 3.0
  assert settings["target_modules"] == [
    "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
  ]  # fmt: skip


def test_an_adapted_model_is_loaded_with_its_mask_and_blocks(tmp_path):
  base = tiny_model.save(tmp_path / "base")
  text = mtjax.load(str(base), weights=None)
  settings = dict(tiny_model.MASKED, alignment="shifted", block_length=4)
  fields = {name: getattr(text.model.config, name) for name in vars(text.model.config)}
  config = TransformerConfig(**{**fields, **settings})
  params = {**text.params, "extra": {"table": np.ones((1, 16), np.float32)}}
  lora = LoraConfig(rank=2, trained=("extra/table",))
  adapters = init_lora(lora, params, jax.random.key(0))
  rng = np.random.default_rng(0)
  adapters = jax.tree.map(lambda x: np.float32(x + rng.standard_normal(x.shape)), adapters)
  folder = tmp_path / "adapter"
  save_adapters(folder, config, adapters, base=str(base), scale=2.0, dtype="float32")
  expected = merge_lora(with_lora(params, adapters, 2.0))
  for found in (
    mtjax.load(str(folder), weights=None),
    mtjax.load(str(base), adapter=str(folder), weights=None),
  ):
    assert found.model.config == config
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.params, expected)
  model = mtjax.load(str(folder))
  method = mtjax.denoiser("block", length=8, steps=4, transfer="llada_counts", cache="none")
  completions, _ = model.denoise(["The old clock"], method=method)
  assert len(completions[0].tokens) <= 8


def test_what_is_not_plain_lora_is_refused(tmp_path):
  write_peft(tmp_path, use_dora=True)
  with pytest.raises(ValueError, match="use_dora True is not supported"):
    load_adapters(tmp_path, MODEL.config)
  write_peft(tmp_path)
  small = Model(TransformerConfig(tied=False, **{**CONFIG, "layers": uniform_layers(1)}))
  with pytest.raises(ValueError, match=r"has base_model.model.model.layers.1.*no adapter"):
    load_adapters(tmp_path, small.config)
  wide = TransformerConfig(tied=False, **{**CONFIG, "dim": 32})
  with pytest.raises(ValueError, match=r"factors of .*q_proj.weight are \(2, 24\) and \(32, 2\)"):
    load_adapters(tmp_path, wide)
  (tmp_path / "adapter_model.safetensors").unlink()
  with pytest.raises(FileNotFoundError, match="has no adapter_model.safetensors"):
    load_adapters(tmp_path, MODEL.config)
