"""A config.json with settings that its owner added from model cards, read as in transformers."""

import functools
import importlib.util
import json

import pytest

from mtjax import checkpoints
from mtjax.checkpoints import families
from mtjax.evaluate import parity
from mtjax.models import Rope

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)

FULL, SLIDING = "full_attention", "sliding_attention"
LINEAR = dict(type="linear", factor=4.0)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=32)
LLAMA3 = dict(
  type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=32,
)


@pytest.fixture(scope="module")
def oracles():
  return functools.cache(parity.make_oracle)


def difference(folder):
  """Returns (the model that we read, the largest difference of its logits from transformers')."""
  import transformers

  oracle = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
  model, params = checkpoints.load(folder)
  rows = parity.prompts()
  expected = parity.oracle_logits(oracle.eval(), rows)
  return model, parity.difference(expected, parity.logits(model, params, rows))


def edit(oracle, folder, **fields):
  oracle.save_pretrained(folder)
  raw = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(raw | fields))
  return raw


@needs_torch
@pytest.mark.parametrize(
  ("name", "scaling"),
  [
    ("llama 2", LINEAR),
    ("llama 2", LLAMA3),
    ("mistral", LINEAR),
    ("qwen 2", LINEAR),
    ("qwen 2", YARN),
    ("qwen 3", LINEAR),
    ("smollm 3", LINEAR),
    ("olmo 2", LINEAR),
    ("gemma 2", LINEAR),
  ],
)
def test_an_older_rope_scaling_replaces_rope_parameters(oracles, tmp_path, name, scaling):
  raw = edit(oracles(name), tmp_path, rope_scaling=scaling)
  assert raw["rope_parameters"]["rope_type"] == "default"
  model, error = difference(tmp_path)
  rope = model.config.layers[0].rope
  assert (rope.kind, rope.factor) == (scaling["type"], scaling["factor"])
  assert error <= parity.TOLERANCE


@needs_torch
def test_values_of_rope_parameters_are_replaced_too(oracles, tmp_path):
  # It has theta 500,000 and llama3. transformers uses 10,000; so do we, with a warning.
  edit(oracles("llama 3"), tmp_path, rope_scaling=LINEAR)
  with pytest.warns(UserWarning, match="rope_theta 500000.0: 10000.0 is used. Put rope_theta into"):
    model, error = difference(tmp_path)
  assert model.config.layers[0].rope == Rope(kind="linear", factor=4.0)
  assert error <= parity.TOLERANCE


BASE = dict(
  vocab_size=8,
  hidden_size=8,
  intermediate_size=8,
  num_hidden_layers=2,
  num_attention_heads=2,
  num_key_value_heads=1,
)
PARAMETERS = dict(rope_type="default", rope_theta=3e4)


@pytest.mark.parametrize(
  ("fields", "theta"),
  [
    (dict(rope_theta=3e4), 3e4),
    (dict(rope_theta=3e4, rope_scaling={FULL: LINEAR, SLIDING: YARN}), 3e4),
    (dict(rope_theta=5e4, rope_scaling=LINEAR | dict(rope_theta=3e4)), 3e4),
    (dict(model_type="smollm3", rope_parameters=PARAMETERS | dict(rope_theta=2e6)), 2e6),
  ],
)
def test_theta_beside_a_scaling(fields, theta, recwarn):
  raw = dict(BASE, model_type="llama", rope_parameters=PARAMETERS, rope_scaling=LINEAR) | fields
  rope = families.read_config(raw)[1].layers[0].rope
  assert rope == Rope(theta=theta, kind="linear", factor=4.0)
  assert not recwarn.list


def test_gemma_3_adds_the_scaling_to_its_full_layers():
  """transformers' Gemma3TextConfig has its own convert_rope_params_to_dict, which does the same."""
  parameters = {FULL: PARAMETERS, SLIDING: dict(rope_type="default", rope_theta=2e4)}
  scaling = dict(rope_type="linear", factor=4.0)
  raw = dict(BASE, model_type="gemma3_text", rope_parameters=parameters, rope_scaling=scaling)
  layers = families.read_config(dict(raw, layer_types=[FULL, SLIDING]))[1].layers
  assert layers[0].rope == Rope(theta=3e4, kind="linear", factor=4.0)
  assert layers[1].rope == Rope(theta=2e4)


@needs_torch
@pytest.mark.parametrize(
  ("types", "windows"),
  [
    ([FULL, SLIDING], [None, 7]),
    ([FULL, FULL], [None, None]),
    (None, [7, 7]),
  ],
)
def test_a_mistral_obeys_its_layer_types(oracles, tmp_path, types, windows):
  edit(oracles("mistral"), tmp_path, layer_types=types)
  model, error = difference(tmp_path)
  assert [layer.window for layer in model.config.layers] == windows
  assert error <= parity.TOLERANCE


@needs_torch
def test_a_mistral_of_mixed_layers_is_saved_as_a_model_of_them(oracles, tmp_path):
  edit(oracles("mistral"), tmp_path, layer_types=[FULL, SLIDING])
  model, params = checkpoints.load(tmp_path)
  checkpoints.save(tmp_path / "again", model, params)
  again, error = difference(tmp_path / "again")
  assert again == model and error <= parity.TOLERANCE


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(layer_types=[FULL]), "there are 1 layer_types for 2 layers"),
    (
      dict(layer_types=[FULL, "chunked_attention"]),
      "layer_types must be among .*'chunked_attention'",
    ),
    (dict(layer_types=[FULL, SLIDING], sliding_window=None), "there is no sliding_window"),
  ],
)
def test_wrong_layer_types_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    families.read_config(dict(BASE, model_type="mistral") | fields)
