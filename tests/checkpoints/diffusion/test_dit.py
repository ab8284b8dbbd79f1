"""MDLM and BD3-LM: adaptive norms are folded when a folder is read, and unfolded in an export."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints, sharding
from mtjax import frontier as frontier_lib
from mtjax.anysubset import SelfDraft, Sequential, fill, log_likelihood, make_canvas, query_token
from mtjax.checkpoints import families
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.models import Model
from tests.checkpoints.diffusion import dit, oracles
from tests.compiled import forward

TOLERANCE = 1e-4
TOKENS = oracles.TOKENS
PLACE = np.arange(TOKENS.shape[1])
BLOCKS = PLACE[:, None] // 4 >= PLACE[None] // 4
CASES = {
  "bd3lm": (dit.BD3LM, BLOCKS),
  "bd3lm without adaptive norms": (dict(dit.BD3LM, adaln=False), BLOCKS),
  "bd3lm that sees everything": (dict(dit.BD3LM, cross_attn=False), np.ones_like(BLOCKS)),
  "mdlm": (dit.MDLM, np.ones_like(BLOCKS)),
}


def written(folder, config):
  """Writes a random model and returns its tensors, with the buffers that its class saves."""
  width = config["cond_dim"] if config.get("adaln", True) else None
  tensors = oracles.random_tensors(dit.shapes(config["hidden_dim"], width, config["n_blocks"]))
  buffers = {
    "backbone.rotary_emb.inv_freq": np.ones(4, np.float32),
    "sampling_eps_min": np.array(1e-3, np.float32),
    "sampling_eps_max": np.array(1, np.float32),
  }
  oracles.write(folder, config, tensors | buffers)
  return tensors


def logits(model, params):
  network = MaskedNetwork.of(model)
  frontier = network.canvas(jnp.asarray(TOKENS), jnp.full(len(TOKENS), TOKENS.shape[1]))
  with jax.default_matmul_precision("highest"):
    return np.asarray(forward(model, params, frontier).logits)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_authors_forward_pass(tmp_path, name):
  config, visible = CASES[name]
  tensors = written(tmp_path, config)
  expected = np.stack([dit.logits(tensors, 2, 2, row, PLACE, visible) for row in TOKENS])
  model, params = checkpoints.load(tmp_path)
  assert np.abs(logits(model, params) - expected).max() <= TOLERANCE
  network = MaskedNetwork.of(model)
  length = 4 if visible is BLOCKS else 0
  assert (network.mask_id, network.shifted, network.block_length) == (49, False, length)


def test_a_lost_modulation_is_noticed(tmp_path):
  tensors = written(tmp_path, dit.BD3LM)
  expected = dit.logits(tensors, 2, 2, TOKENS[0], PLACE, BLOCKS)
  for name in ("blocks.1.adaLN_modulation.bias", "output_layer.adaLN_modulation.weight"):
    other = tensors | {f"backbone.{name}": 0 * tensors[f"backbone.{name}"]}
    oracles.write(tmp_path, dit.BD3LM, other)
    assert np.abs(logits(*checkpoints.load(tmp_path))[0] - expected).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_an_export_is_read_as_the_same_numbers(tmp_path, name, dtype):
  config, visible = CASES[name]
  written(tmp_path / "old", config)
  model, params = checkpoints.load(tmp_path / "old", dtype=dtype)
  checkpoints.save(tmp_path / "new", model, params)
  again, same = checkpoints.load(tmp_path / "new", dtype=dtype)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)
  # In their code it is the same network, too.
  tensors = safetensors.load_file(tmp_path / "new" / "model.safetensors")
  raw = json.loads((tmp_path / "new" / "config.json").read_text())
  assert raw["model_type"] == ("bd3lm" if visible is BLOCKS else "mdlm")
  assert set(tensors) == set(dit.shapes(16, raw["cond_dim"], 2))
  if dtype is None:
    expected = dit.logits(tensors, 2, 2, TOKENS[0], PLACE, visible)
    assert np.abs(logits(model, params)[0] - expected).max() <= TOLERANCE


def test_parts_of_a_mesh_are_folded_to_the_same_numbers(tmp_path):
  written(tmp_path, dit.BD3LM)
  model, params = checkpoints.load(tmp_path)
  again, same = checkpoints.load(tmp_path, mesh=sharding.make_mesh())
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(time_conditioning=True), "a bd3lm with time_conditioning is not supported"),
    (dict(causal=True), "a bd3lm with causal is not supported"),
    (dict(n_heads=3), r"n_heads \(3\) must divide hidden_dim \(16\)"),
    (dict(cond_dim=0), "cond_dim of config.json must be a whole number from 1"),
    (dict(mask_token_id=50), "mask_id must be a token of the vocabulary, 0..49, got 50"),
  ],
)
def test_settings_that_the_network_lacks_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    families.read_config(dit.BD3LM | fields)


def test_tensors_of_another_width_are_refused(tmp_path):
  tensors = written(tmp_path, dit.BD3LM)
  oracles.write(tmp_path, dict(dit.BD3LM, cond_dim=7), tensors)
  with pytest.raises(ValueError, match=r"sigma_map.mlp.0.weight is \[6, 256\] and must be \[7, 25"):
    checkpoints.load(tmp_path)
  oracles.write(tmp_path, dict(dit.BD3LM, adaln=False), tensors)
  with pytest.raises(ValueError, match=r"unexpected: .*adaLN_modulation"):
    checkpoints.load(tmp_path)


def nested(folder, architecture, **inner):
  """Writes a model with the settings of its network in backbone_config; returns its tensors."""
  backbone = dit.BACKBONE | inner
  config = dit.NESTED | dict(architectures=[architecture], backbone_config=backbone)
  width = backbone["cond_dim"] if backbone["adaln"] else None
  tensors = oracles.random_tensors(dit.shapes(16, width, 2))
  oracles.write(folder, config, tensors)
  return tensors


@pytest.mark.parametrize("adaln", [False, True])
def test_settings_of_the_newer_form_are_read(tmp_path, adaln):
  tensors = nested(tmp_path, "BD3LM", adaln=adaln)
  model, params = checkpoints.load(tmp_path)
  network = MaskedNetwork.of(model)
  assert (network.mask_id, network.block_length) == (48, 8)
  visible = PLACE[:, None] // 8 >= PLACE[None] // 8
  expected = dit.logits(tensors, 2, 2, TOKENS[0], PLACE, visible)
  assert np.abs(logits(model, params)[0] - expected).max() <= TOLERANCE


def test_a_set_diffusion_model_has_the_logits_of_clean_and_mask_entries(tmp_path):
  tensors = nested(tmp_path / "old", "SetDLM")
  model, params = checkpoints.load(tmp_path / "old")
  assert (model.config.predicts, model.config.mask_id) == ("any_subset", 48)
  # Both streams in the order of decision: a clean entry sees earlier ones and itself, a mask sees
  # earlier clean ones and itself, and no entry sees a mask of another place.
  order = np.random.default_rng(1).permutation(PLACE)
  masks, size = np.full_like(order, 48), len(order)
  token, position = np.concatenate([TOKENS[0][order], masks]), np.concatenate([order, order])
  visible = np.eye(2 * size, dtype=bool)
  visible[:size, :size] = np.tri(size)
  visible[size:, :size] = np.tri(size, k=-1)
  expected = dit.logits(tensors, 2, 2, token, position, visible)
  rank, place = jnp.arange(size)[None], jnp.asarray(order)[None]
  clean = frontier_lib.content(jnp.asarray(TOKENS[:1, order]), place, rank)
  query = frontier_lib.query(jnp.asarray(masks)[None], place, rank)
  query = query.replace(own=jnp.ones(query.token.shape, bool))
  frontier = frontier_lib.concatenate(clean, query)
  np.testing.assert_array_equal(frontier_lib.as_dense(frontier)[0], visible)
  with jax.default_matmul_precision("highest"):
    result = np.asarray(forward(model, params, frontier).logits)[0]
  assert np.abs(result - expected).max() <= TOLERANCE
  checkpoints.save(tmp_path / "new", model, params)
  raw = json.loads((tmp_path / "new" / "config.json").read_text())
  assert (raw["model_type"], raw["architectures"]) == ("bd3lm", ["SetDLM"])
  again, same = checkpoints.load(tmp_path / "new")
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, same, params)


def test_a_backbone_whose_sizes_no_file_holds_is_refused(tmp_path):
  nested(tmp_path, "SetDLM", _target_="src.backbone.automodel.AutoModelFromPreTrained")
  with pytest.raises(ValueError, match="AutoModelFromPreTrained' is not supported, only DIT"):
    checkpoints.load(tmp_path)


def sets_conditionals(tensors, text, order, known):
  """Returns the authors' log p of the tokens behind `known` of an order, each at its own mask."""
  size, masks = len(order), np.full(len(order), 48)
  token, position = np.concatenate([text[order], masks]), np.concatenate([order, order])
  visible = np.eye(2 * size, dtype=bool)
  visible[:size, :size] = np.tri(size)
  visible[size:, :size] = np.tri(size, k=-1)
  logits = dit.logits(tensors, 2, 2, token, position, visible)[size + known :]
  logits[:, 48] = -np.inf
  return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def test_a_set_diffusion_model_is_filled_and_scored_by_its_masks(tmp_path):
  tensors = nested(tmp_path, "SetDLM")
  model, params = checkpoints.load(tmp_path)
  assert model.config.any_subset_rows == "set_diffusion" and query_token(model.config) == 48
  is_target = np.isin(PLACE, (1, 2, 4, 6))[None]
  canvas = make_canvas(model.config, TOKENS[:1], is_target)
  order = np.array([*PLACE[~is_target[0]], 4, 1, 6, 2])
  rank = np.zeros_like(TOKENS[:1])
  rank[0, order[-4:]] = [1, 2, 3, 4]
  with jax.default_matmul_precision("highest"):
    log_p = log_likelihood(model, params, canvas, rank)[0, order[-4:]]
    filled = [
      fill(model, params, canvas, method=method, rank=rank).token
      for method in (Sequential(), SelfDraft(3))
    ]
  expected = sets_conditionals(tensors, TOKENS[0], order, len(order) - 4)
  assert np.abs(log_p - expected[range(4), TOKENS[0][order[-4:]]]).max() <= TOLERANCE
  text = TOKENS[0].copy()
  for place in range(4):
    number = len(order) - 4 + place
    text[order[number]] = sets_conditionals(tensors, text, order, number)[0].argmax()
  for token in filled:
    np.testing.assert_array_equal(token[0], text)
  # Its mask is a token of the vocabulary, and so a text may not have it.
  with pytest.raises(ValueError, match="a context entry holds the query token"):
    fill(model, params, canvas.replace(token=jnp.full_like(canvas.token, 48)))
  with pytest.raises(ValueError, match="needs a masked model"):
    MaskedNetwork.of(model)


def test_a_model_with_another_mlp_is_not_theirs():
  config = families.read_config(dit.BD3LM)[1]
  with pytest.raises(ValueError, match="closest, (bd3lm|mdlm), cannot: mlp_dim is 40, there 64"):
    families.express(type(config)(**{**vars(config), "mlp_dim": 40}))
  assert Model(config).config.head_bias
