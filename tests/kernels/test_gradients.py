"""Gradients of every implementation that has them, against the reference's by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.frontier_attention import frontier_attention
from tests.kernels.cases import MASKS, Case, inputs

CASES = {
  **{mask: Case(mask, lengths=None) for mask in MASKS},
  "soft cap": Case("content", lengths=None, soft_cap=1.5, scale=0.7),
  "window": Case("causal", lengths=None, window=6),
  "one key head": Case("two_stream", lengths=None, heads=6, kv_heads=1),
  "cache": Case("tree"),
  "pages": Case("tree", lengths=(3, 19), page=8),
  "int8": Case("tree", cache_dtype="int8"),
}
BLOCKS = (10, 16)


def gradients(given, **settings):
  """Of a loss that every output and every finite lse enters with its own weight."""
  names = ["q", "k", "v"]
  if given.get("cache_k") is not None and given["cache_k"].dtype == jnp.float32:
    names += ["cache_k", "cache_v"]

  def loss(arrays):
    out, lse = frontier_attention(**{**given, **arrays}, **settings)
    lse = jnp.where(jnp.isneginf(lse), 0, lse)
    weights = jax.random.normal(jax.random.key(1), (out.size + lse.size,))
    return jnp.vdot(weights, jnp.concatenate([out.ravel(), lse.ravel()]))

  return jax.jit(jax.grad(loss))({name: given[name] for name in names})


@pytest.mark.parametrize("name", CASES)
def test_equal_the_references(name):
  # NaN where nobody looks has no gradient to compare in the reference.
  given = jax.tree.map(_clean, inputs(CASES[name]))
  expected = gradients(given, implementation="reference")
  found = gradients(given, implementation="xla", block_sizes=BLOCKS)
  for side, other in expected.items():
    assert float(jnp.max(jnp.abs(other))) > 1e-3, f"{side}: nothing to compare"
    np.testing.assert_allclose(found[side], other, atol=5e-6, rtol=5e-5, err_msg=side)


def test_nan_in_entries_that_nobody_sees_stays_there():
  given = inputs(CASES["two_stream"])
  assert bool(jnp.isnan(given["k"]).any())
  clean = gradients(jax.tree.map(_clean, given), implementation="xla", block_sizes=BLOCKS)
  found = gradients(given, implementation="xla", block_sizes=BLOCKS)
  for side, other in clean.items():
    np.testing.assert_array_equal(found[side], other, err_msg=side)


def _clean(x):
  return jnp.nan_to_num(x) if isinstance(x, jax.Array) and x.dtype == jnp.float32 else x
