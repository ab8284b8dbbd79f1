"""DiffusionGemma compared with transformers: clean text, canvases, self-conditioning, exports."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import checkpoints, sharding
from mtjax import frontier as frontier_lib
from mtjax.checkpoints import families
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.models import CanvasLayer, DiffusionGemmaConfig, Model, canvas_frontier, signal_of
from mtjax.models.model import check_causal
from tests.checkpoints.diffusion.random_gemma import CANVAS, VOCAB, random_gemma

TOLERANCE = 1e-4
PROMPT = 11  # longer than the window
TEXT = np.random.default_rng(0).integers(3, VOCAB, (2, PROMPT)).astype(np.int32)
NOISE = np.random.default_rng(1).integers(0, VOCAB, (2, CANVAS)).astype(np.int32)

pytestmark = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
  """Returns a random model of transformers, and the folder that it is saved in."""
  model, folder = random_gemma(), tmp_path_factory.mktemp("diffusion_gemma")
  model.save_pretrained(folder)
  return model, folder


def theirs(model):
  """Returns features of the text, and logits of two passes over the canvas."""
  import torch

  text, noise = (torch.tensor(x, dtype=torch.long) for x in (TEXT, NOISE))
  with torch.no_grad():
    one = model(input_ids=text, decoder_input_ids=noise)
    two = model(input_ids=text, decoder_input_ids=noise, self_conditioning_logits=one.logits)
  return [x.numpy() for x in (one.encoder_last_hidden_state, one.logits, two.logits)]


def ours(model, params):
  config, batch = model.config, len(TEXT)
  with jax.default_matmul_precision("highest"):
    clean = frontier_lib.causal(jnp.asarray(TEXT))
    out = model.forward(params, clean)
    path = jnp.broadcast_to(jnp.arange(PROMPT), TEXT.shape)
    cache = model.allocate(batch, PROMPT + 5)
    cache = cache.commit(out.kv, clean.position, path, jnp.full(batch, PROMPT))
    canvas = canvas_frontier(jnp.asarray(NOISE), start=PROMPT, config=config)
    one = model.forward(params, canvas, cache).logits
    signal = signal_of(config, params, one)
    canvas = canvas_frontier(jnp.asarray(NOISE), start=PROMPT, signal=signal, config=config)
    two = model.forward(params, canvas, cache).logits
  return [np.asarray(x) for x in (out.features, one, two)]


def differences(one, other):
  return [float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)]


@pytest.fixture(scope="module")
def expected(oracle):
  return theirs(oracle[0])


def test_text_and_canvases_have_the_numbers_of_transformers(oracle, expected):
  model, params = checkpoints.load(oracle[1])
  assert max(differences(ours(model, params), expected)) <= TOLERANCE
  assert differences([expected[1]], [expected[2]])[0] > 0.01


def layers(**fields):
  return lambda config: dataclasses.replace(
    config, layers=tuple(dataclasses.replace(layer, **fields) for layer in config.layers)
  )


def field(**fields):
  return lambda config: dataclasses.replace(config, **fields)


@pytest.mark.parametrize(
  "change",
  [layers(rotary_share=1.0), layers(window=None), layers(window=5), field(top_experts=1),
   field(logit_soft_cap=None), layers(theta=100.0), field(activation="gelu")],
  ids=["rotary share", "no window", "window", "experts", "cap", "theta", "activation"],
)  # fmt: skip
def test_a_lost_setting_is_noticed(oracle, expected, change):
  model, params = checkpoints.load(oracle[1])
  other = Model(change(model.config))
  assert max(differences(ours(other, params), expected)) > 3 * TOLERANCE


def test_the_two_scales_of_a_layer_are_not_exchanged(oracle, expected):
  model, params = checkpoints.load(oracle[1])
  layer = dict(params["layer_1"])
  layer["clean_scale"], layer["canvas_scale"] = layer["canvas_scale"], layer["clean_scale"]
  assert max(differences(ours(model, params | {"layer_1": layer}), expected)) > 100 * TOLERANCE


def test_transformers_loads_what_we_save(oracle, expected, tmp_path):
  import transformers

  model, params = checkpoints.load(oracle[1])
  checkpoints.save(tmp_path, model, params)
  again, same = checkpoints.load(tmp_path)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)
  # Only the text half is there: images keep their small random network.
  file = tmp_path / "config.json"
  raw = json.loads(file.read_text())
  raw["vision_config"] = json.loads((oracle[1] / "config.json").read_text())["vision_config"]
  file.write_text(json.dumps(raw))
  back = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(
    tmp_path, attn_implementation="eager"
  ).eval()
  assert differences(theirs(back), expected) == [0, 0, 0]


def test_parts_of_a_mesh_have_the_same_numbers(oracle):
  model, params = checkpoints.load(oracle[1])
  same = checkpoints.load(oracle[1], mesh=sharding.make_mesh())[1]
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_a_new_model_has_the_parameters_of_an_imported_one(oracle):
  model, params = checkpoints.load(oracle[1])
  new = model.init(jax.random.key(0))
  assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(use_bidirectional_attention="all"), "encoder is not causal is not supported"),
    (dict(attention_bias=True), "attention_bias is not supported"),
    (dict(num_experts=None), "no 'num_experts', which must be a whole number"),
    (dict(per_layer_config=dict(last={})), "must have the numbers of layers, got .'last'"),
    (dict(per_layer_config={"2": []}), "per_layer_config of layer 2 must be an object"),
    (dict(top_k_experts=5), "5 of 4 experts cannot be chosen"),
    (
      dict(rope_parameters=dict(full_attention=dict(rope_type="yarn", factor=2.0))),
      "type 'yarn' are not supported for full_attention",
    ),
  ],
)
def test_settings_that_the_network_lacks_are_refused(oracle, fields, message):
  raw = json.loads((oracle[1] / "config.json").read_text())
  raw["text_config"] |= fields
  with pytest.raises(ValueError, match=message):
    families.read_config(raw)


def test_other_decoders_refuse_it(oracle):
  model = checkpoints.load(oracle[1])[0]
  with pytest.raises(ValueError, match="is a uniform diffusion model, but a causal one is needed"):
    check_causal(model, "the target")
  with pytest.raises(ValueError, match="needs a masked model .* predicts 'canvas'"):
    MaskedNetwork.of(model)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: CanvasLayer(2, 3), "rotary positions need an even head_dim"),
    (lambda: CanvasLayer(2, 4, window=0), "window must be a whole number and at least 1"),
    (lambda: CanvasLayer(2, 4, rotary_share=0.0), "rotary_share must be above 0"),
    (
      lambda: DiffusionGemmaConfig(8, 8, 3, 8, 2, 1, 8, (CanvasLayer(2, 4),)),
      "3 heads do not divide among 2 key/value heads",
    ),
  ],
)
def test_wrong_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
