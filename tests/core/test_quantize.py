"""int8 and packed parameters: the same forward pass over other representations of the weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.models import Model, TransformerConfig, quantize, uniform_layers
from mtjax.models.quantize import pack
from mtjax.models.stacking import Stacks, scanned
from mtjax.native import build, support

CONFIG = dict(
  vocab_size=40, dim=24, heads=2, kv_heads=1, head_dim=8, mlp_dim=20, layers=uniform_layers(2)
)


to_int8, dequantize = jax.jit(quantize.to_int8), jax.jit(quantize.dequantize)


@functools.cache
def _make(tied):
  model = Model(TransformerConfig(tied=tied, qkv_bias=True, extra_embeddings=2, **CONFIG))
  params = model.init(jax.random.key(1))
  rng = np.random.default_rng(2)
  params = jax.tree.map(lambda x: np.float32(x + 0.1 * rng.standard_normal(x.shape)), params)
  return model, params


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, tokens):
  return model.forward(params, frontier.causal(tokens)).logits


def _logits(model, params):
  return np.asarray(_forward(model, params, np.random.default_rng(0).integers(0, 42, (2, 5))))


@pytest.mark.parametrize("tied", [True, False])
def test_int8_is_exactly_the_model_it_stands_for(tied):
  model, params = _make(tied)
  quantized = to_int8(params)
  restored = dequantize(quantized)
  assert jax.tree.structure(restored) == jax.tree.structure(params)
  np.testing.assert_allclose(_logits(model, quantized), _logits(model, restored), atol=2e-5)
  assert np.abs(_logits(model, quantized) - _logits(model, params)).max() > 1e-3, (
    "int8 changes the target; equal logits mean it was not applied"
  )


def test_int8_error_is_at_most_half_a_step_of_each_channel():
  _, params = _make(tied=True)
  restored, quantized = dequantize(to_int8(params)), to_int8(params)
  kernel = params["layer_0"]["mlp"]["down"]["kernel"]
  error = np.abs(restored["layer_0"]["mlp"]["down"]["kernel"] - kernel)
  assert (error <= 0.5001 * np.asarray(quantized["layer_0"]["mlp"]["down"]["scale"])).all()
  error = np.abs(restored["embedding"]["table"] - params["embedding"]["table"])
  assert (error <= 0.5001 * np.asarray(quantized["embedding"]["scale"])[:, None]).all()


def test_int8_again_changes_nothing():
  _, params = _make(tied=True)
  once = to_int8(params)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), once, to_int8(once)))


@pytest.fixture
def without_native_code(monkeypatch):
  """Leaves out the rounding of what int8 meets: tests/native/test_matmul.py has its bound."""
  monkeypatch.setattr(build, "unavailable", lambda: "it is switched off by a test")
  _forward.clear_cache()  # a compiled program keeps the implementation that it was made with
  yield
  _forward.clear_cache()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_packing_keeps_the_model(tied, weights, request):
  if weights == "int8":
    request.getfixturevalue("without_native_code")
  model, params = _make(tied)
  if weights == "bfloat16":
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
  if weights == "int8":
    params = to_int8(params)
  packed = pack(params)
  kernel = packed["layer_0"]["attention"]["qkv"]["packed"]
  assert kernel.dtype == weights, "bfloat16 is used if, and only if, it holds every weight exactly"
  np.testing.assert_allclose(_logits(model, packed), _logits(model, params), atol=2e-5)


def test_zero_columns_stay_zero():
  params = jax.tree.map(lambda x: x, _make(tied=True)[1])  # others share what is made
  params["layer_0"]["mlp"]["down"]["kernel"] = jnp.zeros((20, 24))
  restored = dequantize(to_int8(params))["layer_0"]["mlp"]["down"]["kernel"]
  np.testing.assert_array_equal(restored, 0)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_packing_in_stacks_keeps_the_model(weights, request):
  if weights == "int8":
    request.getfixturevalue("without_native_code")
  model, params = _make(tied=True)
  if weights == "bfloat16":
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
  if weights == "int8":
    params = to_int8(params)
  stacked = Model(scanned(model.config))
  packed = pack(params, Stacks.of(stacked.config))
  kernel = packed["stack_0"]["attention"]["qkv"]["packed"]
  assert kernel.dtype == weights and kernel.shape == (2, 1, 24, 64)
  np.testing.assert_allclose(_logits(stacked, packed), _logits(model, params), atol=2e-5)


@pytest.mark.skipif(support() is not None, reason=f"no native code: {support()}")
def test_native_int8_products_move_logits_less_than_int8_weights_do():
  model, params = _make(tied=True)
  quantized = to_int8(params)
  exact = _logits(model, quantized)
  moved = np.abs(_logits(model, pack(quantized)) - exact).max()
  assert 0 < moved < 0.05 * np.abs(_logits(model, params) - exact).max()


def test_float16_weights_are_packed_without_loss():
  model, params = _make(tied=False)
  half = jax.tree.map(lambda x: x.astype(np.float16), params)
  packed = pack(half)
  assert packed["layer_0"]["mlp"]["down"]["packed"].dtype == np.float32
  np.testing.assert_allclose(_logits(model, packed), _logits(model, half), atol=2e-5)
