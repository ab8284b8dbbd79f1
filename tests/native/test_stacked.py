"""stacked_matmul is packed_matmul of one layer, without a copy of the weights of all layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.native import matmul, pack_weights, packed_matmul, quantize_int8, stacked_matmul

# Odd: a second, partial panel, and rows left over after words of two and of four.
L, K, N = 3, 67, 75
DTYPES = ("float32", "bfloat16", "int8")
run = jax.jit(stacked_matmul, static_argnames=("n", "implementation"))


def stacked(dtype, k=K, n=N):
  """Returns (packed weights [L, P, k, 64], scales [L, n] or None) of a type, each layer another."""
  kernels = jnp.asarray(np.random.default_rng(1).normal(size=(L, k, n)), jnp.float32)
  if dtype != "int8":
    return jnp.stack([pack_weights(kernel.astype(dtype)) for kernel in kernels]), None
  values, scales = zip(*map(quantize_int8, kernels), strict=True)
  return jnp.stack([pack_weights(v) for v in values]), jnp.stack(scales)


def rows(m, k=K):
  return np.random.default_rng(2).normal(size=(m, k)).astype(np.float32)


def layers_alone(x, packed, scale, implementation):
  """Returns [L, m, N]: the products of the layers, each packed by itself."""
  scales = [None] * L if scale is None else scale
  one = jax.jit(lambda x, w, s: packed_matmul(x, w, s, n=N, implementation=implementation))
  return np.stack([one(x, packed[i], scales[i]) for i in range(L)])


@pytest.mark.parametrize("implementation", matmul.IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_layer_is_the_product_of_its_own_weights(native, dtype, implementation):
  packed, scale = stacked(dtype)
  for m in (1, 6):
    want = layers_alone(rows(m), packed, scale, implementation)
    for i in range(L):
      y = run(rows(m), packed, scale, jnp.int32(i), n=N, implementation=implementation)
      np.testing.assert_array_equal(y, want[i])


@pytest.mark.parametrize("implementation", matmul.IMPLEMENTATIONS)
def test_an_index_out_of_range_is_clamped_as_in_slices(native, implementation):
  packed, scale = stacked("int8")
  want = layers_alone(rows(2), packed, scale, implementation)
  for index, layer in ((-1, 0), (L, L - 1), (2**31 - 1, L - 1)):
    y = run(rows(2), packed, scale, jnp.int32(index), n=N, implementation=implementation)
    np.testing.assert_array_equal(y, want[layer])


def test_a_scan_over_layers_copies_no_weights(native):
  k = 256
  packed, _ = stacked("float32", k, k)

  @jax.jit
  def forward(x, packed):
    body = lambda x, i: (stacked_matmul(x, packed, None, i, n=k) / k**0.5, None)  # noqa: E731
    return jax.lax.scan(body, x, jnp.arange(L))[0]

  x = rows(2, k)
  want = x
  for weights in packed:
    want = np.asarray(packed_matmul(want, weights, n=k)) / np.float32(k**0.5)
  np.testing.assert_allclose(forward(x, packed), want, rtol=1e-6, atol=1e-6)
  memory = forward.lower(x, packed).compile().memory_analysis()
  assert memory.temp_size_in_bytes < packed.nbytes / L / 4


def test_vmap_over_layers_and_over_rows(native):
  packed, scale = stacked("int8")
  want = layers_alone(rows(2), packed, scale, None)
  one = lambda x, packed, scale, i: stacked_matmul(x, packed, scale, i, n=N)  # noqa: E731
  over_layers = jax.jit(jax.vmap(one, (None, None, None, 0)))
  np.testing.assert_array_equal(over_layers(rows(2), packed, scale, jnp.arange(L)), want)
  over_rows = jax.jit(jax.vmap(one, (0, None, None, None)))
  np.testing.assert_array_equal(over_rows(rows(2), packed, scale, 1), want[1])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(stacked=np.zeros((2, K, 64), np.int8)), r"must be \[L, P, K, 64\]"),
    (dict(stacked=np.zeros((0, 2, K, 64), np.int8)), r"must be \[L, P, K, 64\]"),
    (dict(stacked=np.zeros((L, 3, K, 64), np.int8)), "do not hold n=75"),
    (dict(scale=np.ones(N, np.float32)), r"float32 \[3, 75\]"),
    (dict(x=np.zeros((1, K + 1), np.float32)), "must end in K=67"),
    (dict(layer=L), r"layer must be in \[0, 3\), got 3"),
    (dict(layer=-1), r"layer must be in \[0, 3\), got -1"),
    (dict(layer=1.0), "one whole number"),
    (dict(layer=np.arange(2)), "one whole number"),
  ],
)
def test_refusals(change, message):
  packed, scale = stacked("int8")
  arguments = dict(x=rows(1), stacked=packed, scale=scale, layer=0, n=N)
  with pytest.raises(ValueError, match=message):
    stacked_matmul(**(arguments | change))
