"""The gradient's TPU kernels without a TPU: interpreted, and watched for races."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter

from kernels_pallas.frontier_attention import blocks, reference
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.tpu import gradient as tpu_grad
from kernels_pallas.frontier_attention.tpu import kernel as tpu
from tests.kernels import test_gradients
from tests.kernels.cases import Case, inputs

# Blocks of 8 keys, tiles of 16 rows: several of each, the last ones of padding or with some.
SMALL = tpu.TileSizes(8, 16, 16)
CASES = {
  **{name: case for name, case in test_gradients.CASES.items() if case.lengths is None},
  "tiles that end in padding": Case("content", lengths=None, entries=21, heads=3, kv_heads=1),
}
SOON = ("two_stream", "documents_x_order", "own", "soft cap")


def arguments(given):
  """Returns (arrays, labels, scoring), so that masks of one kind share a program."""
  arrays = {name: given[name] for name in "qkv"}
  names = ("stamp", "lo", "hi", "hidden", "own", "position")
  scale = given["q"].shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
  scoring = Scoring(scale, given["soft_cap"], given["window"])
  return arrays, {name: given.get(name) for name in names}, scoring


def clean(given):
  # With NaN in unseen places the reference has no gradient to compare with.
  return jax.tree.map(test_gradients._clean, given)


def attend(arrays, labels, scoring, sizes):
  """Returns gradients of the kernels; without sizes those of the reference."""
  sides = blocks.labels_of(**labels, window=scoring.window)
  given = *(arrays[name] for name in "qkv"), *sides, None, labels["position"], scoring
  return reference.attend(*given) if sizes is None else tpu.attend(*given, sizes, True)


def weigh(out, lse):
  """Returns a loss in which every output and every finite lse has its own weight."""
  lse = jnp.where(jnp.isneginf(lse), 0, lse)
  weights = jax.random.normal(jax.random.key(1), (out.size + lse.size,))
  return jnp.vdot(weights, jnp.concatenate([out.ravel(), lse.ravel()]))


@functools.partial(jax.jit, static_argnums=(2, 3))
def gradients(arrays, labels, scoring, sizes):
  return jax.grad(lambda arrays: weigh(*attend(arrays, labels, scoring, sizes)))(arrays)


def close(found, expected, atol=5e-6, rtol=5e-5):
  for side, other in expected.items():
    assert float(jnp.max(jnp.abs(other))) > 1e-3, f"{side}: nothing to compare"
    one, other = (np.asarray(x, np.float32) for x in (found[side], other))
    np.testing.assert_allclose(one, other, atol=atol, rtol=rtol, err_msg=side)


@pytest.mark.parametrize(
  "name", [n if n in SOON else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_equals_the_references(name):
  given = inputs(CASES[name])
  found = gradients(*arguments(given), SMALL)
  close(found, gradients(*arguments(clean(given)), None))
  unseen = ~np.asarray(blocks.visible(**{n: given[n] for n in ("stamp", "lo", "hi")})).any(axis=1)
  if given["own"] is None:
    for side in "kv":
      assert not np.moveaxis(np.asarray(found[side]), 1, 2)[unseen].any(), f"{side}: unseen"


@pytest.mark.slow
def test_bfloat16_rounds_and_no_more():
  given = inputs(Case("two_stream", lengths=None, dtype="bfloat16"))
  arrays, *rest = arguments(given)
  found = gradients(arrays, *rest, SMALL)
  assert {x.dtype for x in found.values()} == {jnp.dtype(jnp.bfloat16)}
  wide = {name: jnp.nan_to_num(x.astype(jnp.float32)) for name, x in arrays.items()}
  close(found, gradients(wide, *rest, None), atol=6e-2, rtol=3e-2)


def test_two_cores_that_share_the_heads_do_not_race(interpreting):
  arrays, labels, scoring = arguments(clean(inputs(CASES["two_stream"])))

  @jax.jit
  def by_hand(arrays):
    found = attend(arrays, labels, scoring, None)
    cotangents = jax.grad(weigh, argnums=(0, 1))(*found)
    sides = blocks.labels_of(**labels)
    sizes = SMALL._replace(heads=1)
    given = (
      *(arrays[name] for name in "qkv"),
      found,
      cotangents,
      *sides,
      scoring,
      sizes,
      interpreting,
    )
    return dict(zip("qkv", tpu_grad.run(*given), strict=True))

  close(by_hand(arrays), gradients(arrays, labels, scoring, None))
  assert not interpreter.races.races_found
