"""config.json of every family: published files, in old and new form, read and written."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints
from mtjax.checkpoints import families
from mtjax.models import Model, Rope, TransformerConfig, uniform_layers
from tests.checkpoints.diffusion import published as diffusion

# As published, without the fields that say nothing about the network.
LLAMA32_1B = dict(
  model_type="llama",
  hidden_size=2048,
  intermediate_size=8192,
  num_attention_heads=32,
  num_key_value_heads=8,
  num_hidden_layers=16,
  head_dim=64,
  vocab_size=128256,
  max_position_embeddings=131072,
  rms_norm_eps=1e-5,
  hidden_act="silu",
  rope_theta=500000.0,
  rope_scaling=dict(
    factor=32.0,
    high_freq_factor=4.0,
    low_freq_factor=1.0,
    original_max_position_embeddings=8192,
    rope_type="llama3",
  ),
  tie_word_embeddings=True,
)
MISTRAL_7B = dict(
  model_type="mistral",
  hidden_size=4096,
  intermediate_size=14336,
  num_attention_heads=32,
  num_key_value_heads=8,
  num_hidden_layers=32,
  vocab_size=32000,
  max_position_embeddings=32768,
  rms_norm_eps=1e-5,
  rope_theta=10000.0,
  sliding_window=4096,
)
QWEN25_05B = dict(
  model_type="qwen2",
  hidden_size=896,
  intermediate_size=4864,
  max_position_embeddings=32768,
  max_window_layers=21,
  num_attention_heads=14,
  num_hidden_layers=24,
  num_key_value_heads=2,
  rms_norm_eps=1e-6,
  rope_theta=1000000.0,
  sliding_window=32768,
  tie_word_embeddings=True,
  use_sliding_window=False,
  vocab_size=151936,
)
QWEN3_06B = dict(
  model_type="qwen3",
  attention_bias=False,
  head_dim=128,
  hidden_size=1024,
  intermediate_size=3072,
  max_position_embeddings=40960,
  max_window_layers=28,
  num_attention_heads=16,
  num_hidden_layers=28,
  num_key_value_heads=8,
  rms_norm_eps=1e-6,
  rope_scaling=None,
  rope_theta=1000000,
  sliding_window=None,
  tie_word_embeddings=True,
  use_sliding_window=False,
  vocab_size=151936,
)
GEMMA2_2B = dict(
  model_type="gemma2",
  attn_logit_softcapping=50.0,
  final_logit_softcapping=30.0,
  head_dim=256,
  hidden_act="gelu_pytorch_tanh",
  hidden_activation="gelu_pytorch_tanh",
  hidden_size=2304,
  intermediate_size=9216,
  max_position_embeddings=8192,
  num_attention_heads=8,
  num_hidden_layers=26,
  num_key_value_heads=4,
  query_pre_attn_scalar=256,
  rms_norm_eps=1e-6,
  rope_theta=10000.0,
  sliding_window=4096,
  vocab_size=256000,
)
# A model of images and text, most of whose text fields have the defaults of the class.
GEMMA3_4B = dict(
  model_type="gemma3",
  text_config=dict(
    model_type="gemma3_text",
    hidden_size=2560,
    intermediate_size=10240,
    num_hidden_layers=34,
    rope_scaling=dict(factor=8.0, rope_type="linear"),
    sliding_window=1024,
  ),
  vision_config=dict(hidden_size=1152),
)
SMOLLM3_3B = dict(
  model_type="smollm3",
  hidden_size=2048,
  intermediate_size=11008,
  max_position_embeddings=65536,
  no_rope_layers=[1, 1, 1, 0] * 9,
  num_attention_heads=16,
  num_hidden_layers=36,
  num_key_value_heads=4,
  rms_norm_eps=1e-6,
  rope_theta=5000000.0,
  use_sliding_window=False,
  vocab_size=128256,
)
OLMO2_1B = dict(
  model_type="olmo2",
  hidden_size=2048,
  intermediate_size=8192,
  max_position_embeddings=4096,
  num_attention_heads=16,
  num_hidden_layers=16,
  num_key_value_heads=16,
  rms_norm_eps=1e-6,
  rope_theta=500000,
  tie_word_embeddings=False,
  vocab_size=100352,
)
GPT2 = dict(
  model_type="gpt2", n_embd=768, n_head=12, n_layer=12, n_positions=1024, vocab_size=50257
)
# The bundled one.
ANY_SUBSET = dict(
  model_type="mtjax_any_subset",
  extra_embeddings=2,
  head_dim=32,
  hidden_size=320,
  intermediate_size=960,
  max_position_embeddings=1024,
  num_attention_heads=10,
  num_hidden_layers=4,
  num_key_value_heads=2,
  tie_word_embeddings=True,
  vocab_size=4096,
)
# As in a folder of a causal model with 2 prompt embeddings, one of which has a name.
EXTENDED = dict(ANY_SUBSET, model_type="mtjax_extended", extra_names=["prompt"])

XLNET_BASE = dict(
  model_type="xlnet",
  attn_type="bi",
  bi_data=False,
  clamp_len=-1,
  d_head=64,
  d_inner=3072,
  d_model=768,
  ff_activation="gelu",
  layer_norm_eps=1e-12,
  mem_len=None,
  n_head=12,
  n_layer=12,
  reuse_len=None,
  same_length=False,
  untie_r=True,
  vocab_size=32000,
)

PUBLISHED = dict(
  llama=LLAMA32_1B,
  mistral=MISTRAL_7B,
  qwen2=QWEN25_05B,
  qwen3=QWEN3_06B,
  gemma2=GEMMA2_2B,
  gemma3_text=GEMMA3_4B,
  smollm3=SMOLLM3_3B,
  olmo2=OLMO2_1B,
  gpt2=GPT2,
  mtjax_any_subset=ANY_SUBSET,
  mtjax_extended=EXTENDED,
  xlnet=XLNET_BASE,
  **diffusion.PUBLISHED,
)
# Numbers of parameters of the published models, from their model cards and files.
PARAMETERS = dict(
  llama=1_235_814_400,
  mistral=7_241_732_096,
  qwen2=494_032_768,
  qwen3=596_049_920,
  gemma2=2_614_341_888,
  gemma3_text=3_880_263_168,
  smollm3=3_075_098_624,
  olmo2=1_484_916_736,
  gpt2=124_439_808,
  mtjax_any_subset=5_983_680,
  mtjax_extended=5_983_680,
  xlnet=116_750_336,
  **diffusion.PARAMETERS,
)
# transformers has no classes for them.
OTHERS = {"mtjax_any_subset", "mtjax_extended", *diffusion.PUBLISHED} - {"diffusion_gemma"}


def read(raw) -> TransformerConfig:
  return families.read_config(raw)[1]


def test_every_family_has_a_published_example():
  assert set(PUBLISHED) == set(families.FAMILIES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_give_models_of_the_published_size(name):
  config = read(PUBLISHED[name])
  shapes = jax.tree.leaves(Model(config).shapes())
  assert sum(leaf.size for leaf in shapes) == PARAMETERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_config_can_be_written_and_read_again(name):
  config = read(PUBLISHED[name])
  family, raw = families.express(config)
  assert family.model_type == name
  raw = json.loads(json.dumps(dict(raw, model_type=name)))
  assert read(raw) == config
  # Readers of either form of rotary settings must find them; LLaDA's own has only one.
  forms = (("rope_parameters",), ("rope_theta", "rope_scaling", "rope_local_base_freq"))
  for form in forms if name != "llada" else ():
    assert read({key: value for key, value in raw.items() if key not in form}) == config


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - OTHERS))
def test_transformers_reads_the_published_file_and_ours_as_one_model(name):
  if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed: pip install mtjax[parity]")
  import transformers

  def through(raw):
    out = transformers.AutoConfig.for_model(**raw).to_dict()
    return read(json.loads(json.dumps(out)))

  config = read(PUBLISHED[name])
  assert through(PUBLISHED[name]) == config
  assert through(dict(families.express(config)[1], model_type=name)) == config


def test_windows_and_ropes_are_in_the_layers_that_the_files_name():
  assert [x.window for x in read(GEMMA2_2B).layers[:3]] == [4096, None, 4096]
  layers = read(GEMMA3_4B).layers
  assert [x.window for x in layers[:7]] == [1024] * 5 + [None, 1024]
  assert layers[0].rope == Rope(theta=1e4)
  assert layers[5].rope == Rope(theta=1e6, kind="linear", factor=8.0)
  assert [x.rope is None for x in read(SMOLLM3_3B).layers[:5]] == [False, False, False, True, False]
  late = dict(QWEN25_05B, use_sliding_window=True, sliding_window=64)
  assert [x.window for x in read(late).layers[20:]] == [None, 64, 64, 64]
  assert {x.window for x in read(QWEN25_05B).layers} == {None}
  assert {x.window for x in read(dict(MISTRAL_7B, sliding_window=None)).layers} == {None}


def test_yarn_computes_its_attention_factor_from_the_factor():
  scaling = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768)
  rope = read(dict(QWEN3_06B, rope_scaling=scaling)).layers[0].rope
  assert rope.attention_factor == pytest.approx(0.1 * np.log(4) + 1)
  scaling.update(mscale=1.0, mscale_all_dim=1.0)
  assert read(dict(QWEN3_06B, rope_scaling=scaling)).layers[0].rope.attention_factor == 1


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (dict(GEMMA3_4B["text_config"], use_bidirectional_attention=True), "no causal language model"),
    (dict(GPT2, scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
    (dict(QWEN3_06B, layer_types=["linear_attention"] * 28), "linear_attention"),
    (dict(QWEN3_06B, layer_types=["full_attention"]), "1 layer_types for 28 layers"),
    (dict(QWEN3_06B, layer_types=["sliding_attention"] * 28), "there is no sliding_window"),
  ],
)
def test_settings_that_the_network_lacks_are_refused(raw, message):
  with pytest.raises(ValueError, match=message):
    read(raw)


def test_a_native_model_whose_heads_do_not_divide_it_is_another_family():
  config = TransformerConfig(
    vocab_size=8, dim=20, heads=3, kv_heads=1, head_dim=8, mlp_dim=8, layers=uniform_layers(1)
  )
  assert families.express(config)[0].model_type == "mistral"
  gemma = dataclasses.replace(read(GEMMA2_2B), heads=10, kv_heads=5)
  with pytest.raises(ValueError, match=r"closest, gemma2, .* heads \(10\) divide dim \(2304\)"):
    families.express(gemma)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_of_a_model_of_images_is_read_without_the_rest(tmp_path, prefix):
  text = dict(
    GEMMA3_4B["text_config"],
    vocab_size=16,
    hidden_size=8,
    head_dim=4,
    intermediate_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
  )
  model = Model(read(text))
  params = jax.tree.map(lambda x: jnp.full(x.shape, x.size, jnp.float32), model.shapes())
  checkpoints.save(tmp_path, model, params)
  tensors = safetensors.load_file(tmp_path / "model.safetensors")
  tensors = {prefix + name.removeprefix("model."): value for name, value in tensors.items()}
  rest = {
    f"{x}.weight": np.ones(3, np.float32) for x in ("vision_tower.a", "multi_modal_projector")
  }
  safetensors.save_file({**tensors, **rest}, tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text(json.dumps(dict(GEMMA3_4B, text_config=text)))
  loaded, values = checkpoints.load(tmp_path)
  assert loaded == model
  jax.tree.map(np.testing.assert_array_equal, values, params)
