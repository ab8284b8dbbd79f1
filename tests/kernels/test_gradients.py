"""Gradients of every implementation that has them, against the reference's by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels_pallas.frontier_attention import blocks, frontier_attention
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.xla import attention as xla
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
  """Returns gradients of a loss in which every output and finite lse has its own weight."""
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
  # With NaN in unseen places the reference has no gradient to compare with.
  given = jax.tree.map(_clean, inputs(CASES[name]))
  expected = gradients(given, implementation="reference")
  found = gradients(given, implementation="xla", block_sizes=BLOCKS)
  for side, other in expected.items():
    assert float(jnp.max(jnp.abs(other))) > 1e-3, f"{side}: nothing to compare"
    np.testing.assert_allclose(found[side], other, atol=5e-6, rtol=5e-5, err_msg=side)


@pytest.mark.parametrize("name", ["two_stream", "own", "soft cap", "one key head"])
def test_from_the_result_of_a_kernel_equal_the_references(name):
  given = jax.tree.map(_clean, inputs(CASES[name]))
  q, k, v = (given[side] for side in "qkv")
  sides = {side: given.get(side) for side in ("stamp", "lo", "hi", "hidden", "own")}
  queries, keys = blocks.labels_of(**sides)
  scoring = Scoring(given["scale"] or q.shape[-1] ** -0.5, given["soft_cap"])

  def reference(q, k, v):
    return frontier_attention(**given | dict(q=q, k=k, v=v), implementation="reference")

  @jax.jit
  def both(q, k, v):
    found, pull = jax.vjp(reference, q, k, v)
    d_out = jax.random.normal(jax.random.key(1), found[0].shape)
    cotangents = d_out, jnp.where(jnp.isneginf(found[1]), 0.0, d_out[..., 0])
    mine = xla.gradients(q, k, v, found, cotangents, queries, keys, scoring, xla.XlaSizes(*BLOCKS))
    return mine, pull(cotangents)

  for side, one, other in zip("qkv", *both(q, k, v), strict=True):
    np.testing.assert_allclose(one, other, atol=5e-6, rtol=5e-5, err_msg=side)


def test_nan_in_entries_that_nobody_sees_stays_there():
  given = inputs(CASES["two_stream"])
  assert bool(jnp.isnan(given["k"]).any())
  clean = gradients(jax.tree.map(_clean, given), implementation="xla", block_sizes=BLOCKS)
  found = gradients(given, implementation="xla", block_sizes=BLOCKS)
  for side, other in clean.items():
    np.testing.assert_array_equal(found[side], other, err_msg=side)


def _clean(x):
  if not isinstance(x, jax.Array) or x.dtype != jnp.float32:
    return x
  return jnp.asarray(np.nan_to_num(np.asarray(x)))  # in jax.numpy, five programs per shape
