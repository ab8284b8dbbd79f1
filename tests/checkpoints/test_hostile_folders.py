"""Damaged or forged folders, which give a model or an error that names the wrong file."""

import json
import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.checkpoints import families
from mtjax.checkpoints.families.fields import CONFIG, ROPE
from mtjax.models import Rope, TransformerConfig, uniform_layers

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-*.safetensors"

DECODER = dict(
  vocab_size=8,
  hidden_size=8,
  intermediate_size=8,
  num_hidden_layers=2,
  num_attention_heads=2,
  num_key_value_heads=1,
  max_position_embeddings=16,
  extra_embeddings=2,
)
OTHERS = dict(
  gpt2=dict(vocab_size=8, n_embd=8, n_head=2, n_layer=2, n_positions=16),
  xlnet=dict(vocab_size=8, d_model=8, n_head=2, n_layer=2, d_inner=8),
)
SCALINGS = dict(
  linear=dict(factor=2.0),
  llama3=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0),
  yarn=dict(factor=4.0, original_max_position_embeddings=8, mscale=1.0, mscale_all_dim=0.7),
)


def base(kind):
  return dict(OTHERS.get(kind, DECODER), model_type=kind)


def llama(**fields):
  return base("llama") | fields


NAN, INF = float("nan"), float("inf")
REFUSED = [
  (llama(hidden_size="x"), "hidden_size of config.json must be a whole number .*, got 'x'"),
  (llama(hidden_size=8.0), "hidden_size .*, got 8.0"),
  (llama(hidden_size=[8]), r"hidden_size .*, got \[8\]"),
  (llama(hidden_size=True), "hidden_size .*, got True"),
  (llama(hidden_size=-8), "hidden_size .*, got -8"),
  (llama(hidden_size=None), "config.json has no 'hidden_size', which must be a whole number"),
  (llama(vocab_size=10**40), "vocab_size .* from 1 to 16777216, got 1000000"),
  (llama(num_hidden_layers=1.5), "num_hidden_layers .* from 1 to 4096, got 1.5"),
  (llama(num_hidden_layers=10**6), "num_hidden_layers .*, got 1000000"),
  (llama(num_hidden_layers=0), "num_hidden_layers .*, got 0"),
  (llama(num_attention_heads=10**5), "num_attention_heads .*, got 100000"),
  (llama(num_key_value_heads=0), "num_key_value_heads .* or null, got 0"),
  (llama(num_attention_heads=16), "head_dim must be a whole number and at least 1, got 0"),
  (llama(max_position_embeddings="x"), "max_position_embeddings .*, got 'x'"),
  (llama(rms_norm_eps=NAN), "rms_norm_eps .* a number from 1e-30 to 1, got nan"),
  (llama(rms_norm_eps=-1), "rms_norm_eps .*, got -1"),
  (llama(rms_norm_eps=10**400), "rms_norm_eps .*, got 1000"),
  (llama(hidden_act=[]), r"hidden_act .* must be a word, or null, got \[\]"),
  (llama(attention_bias=1), "attention_bias .* must be true or false, got 1"),
  (llama(tie_word_embeddings="no"), "tie_word_embeddings .* must be true or false, got 'no'"),
  (llama(model_type=[]), r"model_type .* must be a word, got \[\]"),
  (llama(exits=2), "exits .* must be a list"),
  (llama(exits=["x"]), r"exits .*, got \['x'\]"),
  (llama(rope_theta="x"), "rope_theta of config.json .*, got 'x'"),
  (llama(rope_theta=0), "rope_theta .*, got 0"),
  (llama(rope_theta=INF), "rope_theta .*, got inf"),
  (llama(rope_scaling=5), "rope_scaling .* must be an object, or null, got 5"),
  (llama(rope_parameters=dict(rope_theta=NAN)), "rope_theta of rope_parameters .*, got nan"),
  (llama(rope_parameters=dict(full_attention=[1])), "full_attention of rope_parameters .* an obj"),
  (llama(rope_scaling=dict(type="linear", factor=0)), "factor of rope_scaling .*, got 0"),
  (llama(rope_scaling=dict(type=["linear"])), "type of rope_scaling must be a word"),
  (
    llama(rope_scaling=dict(SCALINGS["llama3"], type="llama3", high_freq_factor=1)),
    r"high_freq_factor \(1.0\) must be more than low_freq_factor \(1.0\)",
  ),
  (base("mistral") | dict(sliding_window=0), "sliding_window .* or null, got 0"),
  (base("mistral") | dict(layer_types="full_attention"), "layer_types .* must be a list"),
  (base("qwen3") | dict(layer_types=[None, {}]), "layer_types .* each a word, or null"),
  (base("smollm3") | dict(no_rope_layer_interval=0), "no_rope_layer_interval .*, got 0"),
  (base("smollm3") | dict(no_rope_layers=[1]), "1 no_rope_layers for 2 layers"),
  (base("smollm3") | dict(num_hidden_layers=None), "config.json has no 'num_hidden_layers'"),
  (base("gemma2") | dict(query_pre_attn_scalar="x"), "query_pre_attn_scalar .*, got 'x'"),
  (base("gemma2") | dict(attn_logit_softcapping=0), "attn_logit_softcapping .*, got 0"),
  (base("gemma3_text") | dict(sliding_window_pattern=0), "sliding_window_pattern .*, got 0"),
  (dict(model_type="gemma3", text_config="x"), "text_config .* must be an object, got 'x'"),
  (base("gpt2") | dict(n_head=0), "n_head .*, got 0"),
  (base("gpt2") | dict(layer_norm_epsilon=0), "layer_norm_epsilon .*, got 0"),
  (base("xlnet") | dict(d_model="8"), "d_model .*, got '8'"),
  (base("xlnet") | dict(bi_data=[]), r"bi_data \[\] is not supported"),
  (base("xlnet") | dict(exits=[1, 2]), "config.json has exits, but a model of type xlnet cannot"),
  (base("mtjax_any_subset") | dict(extra_embeddings="2"), "extra_embeddings .*, got '2'"),
  (base("mtjax_any_subset") | dict(target_conditioning=[]), "target_conditioning .* a word"),
  (base("mtjax_extended") | dict(predicts="past"), "predicts must be one of 'next_token', 'any_s"),
  (base("mtjax_extended") | dict(extra_names="prompt"), "extra_names .* a list, each a word"),
  (
    base("mtjax_extended") | dict(extra_names=["a", "b", "c"]),
    "extra_names has 3 names, .* is only 2",
  ),
]


@pytest.mark.parametrize(("raw", "message"), REFUSED)
def test_values_that_make_no_sense_are_refused_by_name(raw, message):
  with pytest.raises(ValueError, match=message):
    families.read_config(raw)


def test_the_file_is_named_and_a_field_that_is_not_read_may_hold_anything(folder):
  file = folder / "config.json"
  raw = json.loads(file.read_text())
  file.write_text(json.dumps(raw | dict(sliding_window="x", n_head=[], clamp_len=NAN)))
  checkpoints.load(folder)
  file.write_text(json.dumps(raw | dict(hidden_size="x")))
  with pytest.raises(ValueError, match="hidden_size") as error:
    checkpoints.load(folder)
  assert str(file) in str(error.value)


def test_more_layers_than_tensors_are_refused_before_they_are_described(folder):
  file = folder / "config.json"
  raw = json.loads(file.read_text())
  file.write_text(json.dumps(raw | dict(num_hidden_layers=4096, num_attention_heads=1024)))
  with pytest.raises(
    ValueError, match="config.json has 4096 layers, but .*model.safetensors has only"
  ):
    checkpoints.load(folder)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(norm_eps=NAN), "norm_eps must be a finite number above 0, got nan"),
    (dict(norm_eps=-1e-6), "norm_eps must be a finite number above 0"),
    (dict(attention_scale="x"), "attention_scale must be a finite number above 0, got 'x'"),
    (dict(logit_soft_cap=INF), "logit_soft_cap must be a finite number above 0, got inf"),
    (dict(dim="x"), "dim must be a whole number and at least 1, got 'x'"),
    (dict(dim=8.0), "dim must be a whole number and at least 1, got 8.0"),
    (dict(max_position=0), "max_position must be a whole number and at least 1, got 0"),
  ],
)
def test_a_config_in_python_is_checked_too(fields, message):
  sizes = dict(vocab_size=8, dim=8, heads=2, kv_heads=1, head_dim=4, mlp_dim=8)
  with pytest.raises(ValueError, match=message):
    TransformerConfig(layers=uniform_layers(1), **(sizes | fields))


@pytest.mark.parametrize(
  "fields", [dict(theta=1.0), dict(theta=NAN), dict(factor=0), dict(theta="x")]
)
def test_rotary_settings_in_python_are_checked_too(fields):
  with pytest.raises(ValueError, match=f"{next(iter(fields))} must be "):
    Rope(**fields)


TRICKY = [None, True, -1, 0, 1.5, 10**6, 2**63, 10**400, NAN, INF, -INF, "", "x", "\ud800", [], {}]
SCALARS = st.one_of(
  st.sampled_from(TRICKY), st.integers(), st.floats(), st.booleans(), st.text(max_size=3)
)
VALUES = st.recursive(
  SCALARS,
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
  max_leaves=5,
)


def check_config(raw):
  """Checks that a config is refused, or gives a model with finite angles."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      _, config = families.read_config(json.loads(json.dumps(raw)))
    except ValueError:
      return
  if isinstance(config, TransformerConfig):
    for rope in {layer.rope for layer in config.layers} - {None}:
      assert np.isfinite(rope.inverse_frequencies(config.head_dim)).all()


@hypothesis.given(
  kind=st.sampled_from(list(families.FAMILIES)), name=st.sampled_from(sorted(CONFIG)), value=VALUES
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_any_value_of_a_field_is_read_or_refused(kind, name, value):
  check_config(base(kind) | {name: value})


@hypothesis.given(
  kind=st.sampled_from(["llama", "gemma3_text", "smollm3"]),
  scaling=st.sampled_from(list(SCALINGS)),
  field=st.sampled_from(["rope_scaling", "rope_parameters"]),
  name=st.sampled_from([*ROPE, "full_attention"]),
  value=VALUES,
)
@hypothesis.settings(max_examples=300, deadline=None)
def test_any_value_of_a_rotary_setting_is_read_or_refused(kind, scaling, field, name, value):
  settings = dict(SCALINGS[scaling], rope_type=scaling)
  check_config(base(kind) | {field: settings | {name: value}})


def with_header(data, change):
  """Returns the bytes of a safetensors file after `change` has edited its header."""
  end = 8 + int.from_bytes(data[:8], "little")
  header = json.loads(data[8:end])
  change(header)
  text = json.dumps(header).encode()
  return len(text).to_bytes(8, "little") + text + data[end:]


@st.composite
def damages(draw):
  """Samples (pattern of a file, function from its bytes to damaged ones)."""
  value = draw(VALUES)
  at, byte = draw(st.integers(0, 3000)), draw(st.binary(max_size=1))
  raw = lambda data: data[:at] + byte + data[at + 1 :]  # noqa: E731
  cut = lambda data: data[:at]  # noqa: E731

  def config(data):
    return json.dumps(json.loads(data) | {draw(st.sampled_from(sorted(CONFIG))): value}).encode()

  def header(data):
    def change(header):
      name = draw(st.sampled_from(sorted(header)))
      field = draw(st.sampled_from(["", "dtype", "shape", "data_offsets", "name", "another's"]))
      other = draw(st.sampled_from(sorted(header)))
      if field in ("dtype", "shape", "data_offsets"):
        header[name] = header[name] | {field: value}
      else:
        header[str(value) if field == "name" else name] = header.pop(other) if field else value

    return with_header(data, change)

  def index(data):
    content = json.loads(data)
    if draw(st.booleans()):
      return json.dumps(content | dict(weight_map=value)).encode()
    name = draw(st.sampled_from(sorted(content["weight_map"])))
    return json.dumps(dict(weight_map=content["weight_map"] | {name: value})).encode()

  return draw(
    st.sampled_from(
      [
        ("config.json", config),
        (SHARD, header),
        (INDEX, index),
        *((file, change) for file in ("config.json", SHARD, INDEX) for change in (raw, cut)),
      ]
    )
  )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
  folder = tmp_path_factory.mktemp("whole") / "model"
  checkpoints.save(folder, *tiny, shard_bytes=4000)
  return folder


@hypothesis.given(damage=damages())
@hypothesis.settings(
  max_examples=150,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_a_damaged_folder_loads_or_its_file_is_named(whole, damage):
  pattern, change = damage
  (file,) = whole.glob(pattern)
  before = file.read_bytes()
  file.write_bytes(change(before))
  try:
    checkpoints.load(whole)
  except (ValueError, FileNotFoundError) as error:
    assert str(whole) in str(error), error
  finally:
    file.write_bytes(before)
