"""packed_matmul against a float64 product, the same bits for any rows, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.native import (
  build,
  matmul,
  pack_weights,
  packed_matmul,
  quantize_int8,
  support,
  unpack_weights,
)

# Odd: a second, partial panel, and rows left over after words of two and of four.
K, N = 67, 75
GROUP = 128  # entries of x that share a unit, kGroup in mtjax/native/fixed_point.h
DTYPES = ("float32", "bfloat16", "int8")
run = jax.jit(packed_matmul, static_argnames=("n", "implementation"))


def weights(dtype, k=K, n=N):
  """Returns (kernel [k, n], scale or None) of a type."""
  kernel = jnp.asarray(np.random.default_rng(1).normal(size=(k, n)), jnp.float32)
  return quantize_int8(kernel) if dtype == "int8" else (kernel.astype(dtype), None)


def rows(m, k=K):
  return np.random.default_rng(2).normal(size=(m, k)).astype(np.float32)


def oracle(x, kernel, scale):
  """Returns the product in float64, and the sum of the terms' magnitudes, the scale of errors."""
  w = np.asarray(kernel.astype(jnp.float32), np.float64)
  w = w if scale is None else w * np.asarray(scale, np.float64)
  x = x.astype(np.float64)
  return x @ w, np.abs(x) @ np.abs(w)


def fixed_point_error(x, kernel, scale):
  """Returns how far outputs may move if x is rounded by at most max|x| / 65534 of its 128."""
  if scale is None:
    return 0.0
  groups = [slice(k, k + GROUP) for k in range(0, x.shape[1], GROUP)]
  top = np.concatenate([np.abs(x[:, g]).max(1, keepdims=True) + 0 * x[:, g] for g in groups], 1)
  return oracle(top / 65534, kernel, scale)[1]


def close(y, x, kernel, scale, implementation="native") -> bool:
  want, size = oracle(x, kernel, scale)
  fixed = fixed_point_error(x, kernel, scale) if implementation == "native" else 0.0
  return bool(np.all(np.abs(np.asarray(y) - want) <= 1e-6 * size + fixed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 3, 8, 17, 64])
def test_both_implementations_are_the_product(native, dtype, m):
  kernel, scale = weights(dtype)
  packed, x = pack_weights(kernel), rows(m)
  for implementation in matmul.IMPLEMENTATIONS:
    y = run(x, packed, scale, n=N, implementation=implementation)
    assert y.shape == (m, N) and y.dtype == jnp.float32
    assert close(y, x, kernel, scale, implementation), implementation


@pytest.mark.parametrize("k,n", [(1, 1), (3, 64), (320, 320), (4, 200)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_shapes(native, dtype, k, n):
  kernel, scale = weights(dtype, k, n)
  x = rows(2, k)
  assert close(run(x, pack_weights(kernel), scale, n=n, implementation="native"), x, kernel, scale)


@pytest.mark.parametrize("wrong", ["scale", "tail", "column", "word"])
def test_the_check_notices(native, wrong):
  kernel, scale = weights("int8")
  packed, x = pack_weights(kernel), rows(3)
  if wrong == "scale":
    y = run(x, packed, jnp.roll(scale, 1), n=N)
  elif wrong == "tail":
    y = run(x, packed.at[:, -1].set(0), scale, n=N)
  elif wrong == "column":
    y = run(x, packed, scale, n=N).at[:, -1].set(0)
  else:
    y = run(x, pack_weights(kernel[jnp.arange(K) ^ (jnp.arange(K) < 64)]), scale, n=N)
  assert not close(y, x, kernel, scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_among_any_other_rows(native, dtype):
  kernel, scale = weights(dtype)
  packed, x = pack_weights(kernel), rows(131)
  all_rows = run(x, packed, scale, n=N)
  for m in (1, 3, 8, 17, 97):  # more than 96 go in several passes
    np.testing.assert_array_equal(run(x[:m], packed, scale, n=N), all_rows[:m])
  kernel, scale = weights(dtype, 320, 960)
  x, packed, before = rows(17, 320), pack_weights(kernel), build.threads()
  results = []
  try:
    for threads in (1, 2, 3):
      build.set_threads(threads)
      results.append(np.asarray(run(x, packed, scale, n=960)))
  finally:
    build.set_threads(before)
  np.testing.assert_array_equal(results[0], results[1])
  np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("implementation", matmul.IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_stay_in_their_row(native, dtype, implementation):
  kernel, scale = weights(dtype)
  packed, x = pack_weights(kernel), rows(8)
  clean = run(x, packed, scale, n=N, implementation=implementation)
  x[1, 5], x[2, K - 1], x[6, 0] = np.nan, np.inf, -np.inf
  y = np.asarray(run(x, packed, scale, n=N, implementation=implementation))
  with np.errstate(invalid="ignore"):
    want, _ = oracle(x, kernel, scale)
  spoilt = [1, 2, 6]
  np.testing.assert_array_equal(y[spoilt], want[spoilt].astype(np.float32))
  rest = [0, 3, 4, 5, 7]
  assert np.isfinite(y[rest]).all()
  np.testing.assert_allclose(y[rest], clean[jnp.asarray(rest)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-33, 1e-20, 1e30])
def test_int8_takes_rows_of_any_size(native, size):
  kernel, scale = weights("int8")
  x = rows(3) * np.float32(size)
  assert close(run(x, pack_weights(kernel), scale, n=N), x, kernel, scale)


@pytest.mark.parametrize("m", [1, 3])
def test_a_large_entry_coarsens_its_own_group_alone(native, m):
  kernel, scale = weights("int8", 320)
  # The large entry itself meets zeros: what is left is the error of the other groups.
  kernel = kernel.at[GROUP : 2 * GROUP].set(0)
  x = rows(m, 320)
  x[:, GROUP + 5] *= 1e4
  assert close(run(x, pack_weights(kernel), scale, n=N), x, kernel, scale)


@pytest.mark.parametrize("implementation", matmul.IMPLEMENTATIONS)
def test_inside_a_loop(native, implementation):
  kernel, _ = weights("float32", K, K)
  kernel /= jnp.linalg.norm(kernel, 2)
  packed, x = pack_weights(kernel), rows(3)

  @jax.jit
  def power(x, packed, times):
    def body(carry):
      i, x = carry
      return i + 1, packed_matmul(x, packed, n=K, implementation=implementation)

    return jax.lax.while_loop(lambda carry: carry[0] < times, body, (0, x))[1]

  want = x @ np.linalg.matrix_power(np.asarray(kernel, np.float64), 5)
  np.testing.assert_allclose(power(x, packed, 5), want, rtol=1e-4, atol=1e-6)


def test_vmap_over_rows_and_over_weights(native):
  kernel, scale = weights("int8")
  packed = pack_weights(kernel)
  x = rows(12).reshape(2, 2, 3, K)
  want = run(x, packed, scale, n=N)
  assert want.shape == (2, 2, 3, N)
  one = lambda x, packed, scale: packed_matmul(x, packed, scale, n=N)  # noqa: E731
  shared = jax.jit(jax.vmap(jax.vmap(one, (1, None, None), 1), (0, None, None)))
  np.testing.assert_array_equal(shared(x, packed, scale), want)
  each = jax.jit(jax.vmap(one))
  both = jnp.stack([packed, -packed]), jnp.stack([scale, scale])
  y = each(x, *both)
  np.testing.assert_array_equal(y[0], want[0])
  np.testing.assert_array_equal(y[1], -want[1])


@pytest.mark.parametrize("implementation", matmul.IMPLEMENTATIONS)
def test_a_gradient_is_refused(native, implementation):
  packed = pack_weights(weights("float32")[0])
  total = lambda x: packed_matmul(x, packed, n=N, implementation=implementation).sum()  # noqa: E731
  with pytest.raises(NotImplementedError, match="unpacked kernels"):
    jax.grad(total)(rows(1))


def test_without_native_code_the_default_is_xla_and_the_name_refuses(monkeypatch):
  monkeypatch.setattr(build, "unavailable", lambda: "no C++ compiler on PATH")
  kernel, scale = weights("int8")
  packed, x = pack_weights(kernel), rows(3)
  assert "no C++ compiler" in support()
  assert close(packed_matmul(x, packed, scale, n=N), x, kernel, scale)
  with pytest.raises(RuntimeError, match=r"'native' cannot run: no C\+\+ compiler"):
    packed_matmul(x, packed, scale, n=N, implementation="native")


def test_on_another_backend_native_code_is_not_used(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert "gpu" in support()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(n=129), "do not hold n=129"),
    (dict(n=64), "do not hold n=64"),
    (dict(x=np.zeros((1, K + 1), np.float32)), "must end in K=67"),
    (dict(x=np.zeros((1, K), np.float16)), "must be float32"),
    (dict(scale=None), "need a scale"),
    (dict(scale=np.ones(N + 1, np.float32)), r"float32 \[75\]"),
    (dict(packed=np.zeros((2, K, 32), np.int8)), "packed weights must be"),
    (dict(packed=np.zeros((2, K, 64), np.int16)), "float32, bfloat16 or int8"),
    (dict(packed=np.zeros((2, K, 64), np.float32)), "must not have one"),
    (dict(implementation="onednn"), "'onednn'"),
  ],
)
def test_refusals(change, message):
  kernel, scale = weights("int8")
  arguments = dict(x=rows(1), packed=pack_weights(kernel), scale=scale, n=N)
  with pytest.raises(ValueError, match=message):
    packed_matmul(**(arguments | change))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k,n", [(K, N), (8, 64), (1, 1)])
def test_packing_is_undone(dtype, k, n):
  kernel, _ = weights(dtype, k, n)
  packed = pack_weights(kernel)
  assert packed.shape == (-(-n // 64), k, 64) and packed.dtype == kernel.dtype
  np.testing.assert_array_equal(unpack_weights(packed, n), kernel)


def test_quantisation_error_is_half_a_step():
  kernel = jnp.asarray(np.random.default_rng(3).normal(size=(40, 9)), jnp.float32).at[:, 4].set(0)
  values, scale = quantize_int8(kernel)
  assert values.dtype == jnp.int8 and scale.shape == (9,) and scale[4] == 1
  assert np.all(np.abs(kernel - values * scale) <= scale * 0.5001)
  assert np.all(np.max(np.abs(values), axis=0)[np.arange(9) != 4] == 127)


@pytest.mark.parametrize(
  ("operands", "message"),
  [
    (dict(x=jnp.zeros((1, K), jnp.int32)), "x, scale and y must be F32, layer S32"),
    (dict(layer=jnp.float32(0)), "x, scale and y must be F32, layer S32"),
    (dict(layer=jnp.zeros(2, jnp.int32)), "shapes do not fit"),
    (dict(x=jnp.zeros((1, K + 1))), "shapes do not fit"),
    (dict(packed=jnp.zeros((1, K, 64))), "shapes do not fit"),
    (dict(packed=jnp.zeros((K, 64))), "3 or 4 dimensions"),
    (dict(packed=jnp.zeros((2, K, 64), jnp.float16)), "weights must be F32, BF16 or S8"),
    (dict(packed=jnp.zeros((2, K, 64), jnp.int8)), "one scale for each output"),
    (dict(more=jnp.zeros(1)), "4 operands and 1 result"),
  ],
)
def test_the_compiled_code_checks_what_xla_hands_to_it(native, operands, message):
  whole = dict(
    x=jnp.ones((1, K)), packed=jnp.ones((2, K, 64)), scale=jnp.zeros(0), layer=jnp.int32(0)
  )
  call = jax.ffi.ffi_call(build.TARGET, jax.ShapeDtypeStruct((1, N), jnp.float32))
  np.testing.assert_array_equal(call(*whole.values()), np.full((1, N), float(K), np.float32))
  with pytest.raises(jax.errors.JaxRuntimeError, match=message):
    jax.block_until_ready(call(*(whole | operands).values()))
