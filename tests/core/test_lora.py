"""Low-rank adapters: the model with them is the model with W + (alpha / rank) A B."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.models.lora import LoraConfig, has_lora, init_lora, merge_lora, with_lora
from mtjax.models.quantize import dequantize, pack, to_int8
from mtjax.models.stacking import Stacks, scanned, stack_params
from mtjax.native import support

CONFIG = dict(
  vocab_size=40, dim=24, heads=2, kv_heads=1, head_dim=8, mlp_dim=20, layers=uniform_layers(3)
)
LORA = LoraConfig(rank=2, alpha=3.0, trained=("extra/table",))
TARGETS = ("attention/qkv", "attention/out", "mlp/gate_up", "mlp/down")


@functools.cache
def _make(tied=True):
  """Returns a model, its parameters, and adapters whose factors are not 0."""
  model = Model(TransformerConfig(tied=tied, qkv_bias=True, extra_embeddings=2, **CONFIG))
  params = model.init(jax.random.key(1))
  adapters = init_lora(LORA, params, jax.random.key(2))
  rng = np.random.default_rng(0)
  return (
    model,
    params,
    jax.tree.map(lambda x: np.float32(x + 0.3 * rng.standard_normal(x.shape)), adapters),
  )


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, tokens):
  return model.forward(params, frontier.causal(tokens)).logits


def _logits(model, params):
  return np.asarray(_forward(model, params, np.random.default_rng(0).integers(0, 42, (2, 5))))


def _by_hand(params, adapters):
  """Returns parameters with W + 1.5 A B, layer by layer."""
  out = jax.tree.map(np.array, params)
  for layer in range(3):
    for target in TARGETS:
      group, name = target.split("/")
      new = adapters[f"layer_{layer}"][group][name]
      out[f"layer_{layer}"][group][name]["kernel"] += 1.5 * new["lora_a"] @ new["lora_b"]
  out["extra"]["table"] = adapters["extra"]["table"]
  return out


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_with_adapters_is_the_model_with_their_product_added(tied):
  model, params, adapters = _make(tied)
  adapted = with_lora(params, adapters, LORA.scale)
  expected = _logits(model, _by_hand(params, adapters))
  np.testing.assert_allclose(_logits(model, adapted), expected, atol=2e-5)
  merged = merge_lora(adapted)
  assert jax.tree.structure(merged) == jax.tree.structure(params)
  assert has_lora(adapted) and not has_lora(merged) and not has_lora(params)
  np.testing.assert_allclose(_logits(model, merged), expected, atol=2e-5)
  assert np.abs(_logits(model, params) - expected).max() > 0.1, "the adapters change nothing"
  halved = _logits(model, with_lora(params, adapters, LORA.scale / 2))
  assert np.abs(halved - expected).max() > 0.01, "the scale changes nothing"


def test_new_adapters_change_nothing_yet():
  model, params, _ = _make()
  new = init_lora(LORA, params, jax.random.key(0))
  np.testing.assert_array_equal(_logits(model, with_lora(params, new)), _logits(model, params))
  qkv = new["layer_0"]["attention"]["qkv"]
  assert qkv["lora_a"].shape == (24, 2) and qkv["lora_b"].shape == (2, 32)
  assert 0.15 < np.abs(qkv["lora_a"]).max() <= 24**-0.5
  other = new["layer_1"]["attention"]["qkv"]["lora_a"]
  assert (qkv["lora_a"] != other).all(), "layers begin with different factors"


def test_targets_are_patterns_of_paths():
  _, params, _ = _make()
  some = LoraConfig(rank=2, targets=("layer_[01]/attention/qkv", "down"))
  new = init_lora(some, params, jax.random.key(0))
  paths = {jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in _items(new)}
  expected = {f"layer_{i}/attention/qkv" for i in (0, 1)} | {
    f"layer_{i}/mlp/down" for i in range(3)
  }
  assert paths == {f"{path}/{name}" for path in expected for name in ("lora_a", "lora_b")}


def _items(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def test_stacked_layers_take_stacked_adapters():
  model, params, adapters = _make()
  stacked = Model(scanned(model.config))
  stacks = Stacks.of(stacked.config)
  both = stack_params(params, stacks), stack_params(adapters, stacks)
  expected = _logits(model, with_lora(params, adapters, 1.5))
  adapted = with_lora(*both, 1.5)
  np.testing.assert_allclose(_logits(stacked, adapted), expected, atol=2e-5)
  np.testing.assert_allclose(_logits(stacked, merge_lora(adapted)), expected, atol=2e-5)
  new = init_lora(LORA, both[0], jax.random.key(0))
  assert new["stack_0"]["mlp"]["down"]["lora_a"].shape == (3, 20, 2)
  assert jax.tree.structure(new) == jax.tree.structure(both[1])


def test_the_base_may_be_of_another_type_than_the_adapters():
  model, params, adapters = _make()
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
  expected = _logits(model, with_lora(wide, adapters, 1.5))
  np.testing.assert_allclose(_logits(model, with_lora(half, adapters, 1.5)), expected, atol=2e-5)
  merged = merge_lora(with_lora(half, adapters, 1.5))
  assert merged["layer_0"]["mlp"]["down"]["kernel"].dtype == jnp.bfloat16
  np.testing.assert_allclose(_logits(model, merged), expected, atol=0.1)
  int8 = to_int8(params)
  expected = _logits(model, with_lora(dequantize(int8), adapters, 1.5))
  np.testing.assert_allclose(_logits(model, with_lora(int8, adapters, 1.5)), expected, atol=5e-5)


@pytest.mark.skipif(support() is not None, reason=f"no native code: {support()}")
def test_packed_weights_take_adapters_beside_them():
  model, params, adapters = _make()
  expected = _logits(model, with_lora(params, adapters, 1.5))
  packed = with_lora(pack(params), adapters, 1.5)
  np.testing.assert_allclose(_logits(model, packed), expected, atol=5e-5)
  stacked = Model(scanned(model.config))
  stacks = Stacks.of(stacked.config)
  packed = with_lora(pack(params, stacks), stack_params(adapters, stacks), 1.5)
  np.testing.assert_allclose(_logits(stacked, packed), expected, atol=5e-5)


def test_only_the_adapters_have_a_gradient_and_it_is_that_of_the_product():
  """The chain rule of W + c A B: dA = c dW B^T and dB = c A^T dW."""
  model, params, adapters = _make()
  tokens = jnp.asarray(np.random.default_rng(1).integers(0, 40, (1, 4)))

  def loss(params):
    return jnp.sum(jnp.sin(model.forward(params, frontier.causal(tokens)).logits))

  whole = jax.jit(jax.grad(loss))(merge_lora(with_lora(params, adapters, 1.5)))
  found = jax.jit(jax.grad(lambda new: loss(with_lora(params, new, 1.5))))(adapters)
  assert jax.tree.structure(found) == jax.tree.structure(adapters)
  for layer, group, name in (("layer_0", "attention", "qkv"), ("layer_2", "mlp", "down")):
    dw = whole[layer][group][name]["kernel"]
    new, grad = adapters[layer][group][name], found[layer][group][name]
    np.testing.assert_allclose(grad["lora_a"], 1.5 * dw @ new["lora_b"].T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(grad["lora_b"], 1.5 * new["lora_a"].T @ dw, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_refused():
  _, params, adapters = _make()
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=r"targets has 'mlp/gate'.*none of: .*mlp/gate_up"):
    init_lora(LoraConfig(targets=("mlp/gate",)), params, key)
  with pytest.raises(ValueError, match="trained has 'positions/table'"):
    init_lora(LoraConfig(trained=("positions/table",)), params, key)
  adapted = with_lora(params, adapters)
  with pytest.raises(ValueError, match="layer_0/attention/.* has adapters already"):
    with_lora(adapted, adapters)
  with pytest.raises(ValueError, match="have layer_9, which the model lacks"):
    with_lora(params, {"layer_9": adapters["layer_0"]})
  wrong = {"layer_0": {"mlp": {"down": adapters["layer_0"]["mlp"]["gate_up"]}}}
  with pytest.raises(ValueError, match=r"at layer_0/mlp/down are \(24, 2\) and \(2, 40\)"):
    with_lora(params, wrong)
  with pytest.raises(ValueError, match=r"extra/table is \(1, 24\) in the adapters and \(2, 24\)"):
    with_lora(params, {"extra": {"table": np.zeros((1, 24), np.float32)}})
  with pytest.raises(ValueError, match="is int8 or packed: merge adapters before that"):
    merge_lora(with_lora(to_int8(params), adapters))
  for settings in (dict(rank=0), dict(alpha=0.0), dict(targets=("(",))):
    with pytest.raises(ValueError, match=next(iter(settings))):
      LoraConfig(**settings)
