"""The TPU kernel without a TPU: interpreted, watched for races, and lowered for the real one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter
from jax.experimental.pallas import tpu as pltpu

from kernels_pallas.frontier_attention import blocks, frontier_attention, tpu
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.law import Law
from tests.kernels import oracle
from tests.kernels.cases import Case, inputs
from tests.kernels.test_attention import CASES, close

# Blocks of 8 fresh entries and 16 slots, tiles of 16 rows: several of each, the last ones short.
SMALL = tpu.Sizes(8, 16, 16)
SOON = (
  "tree", "documents_x_order", "own", "pages in a window", "int8 in pages", "no cache",
  "nothing to see", "bfloat16",
)  # fmt: skip
TOLERANCE = dict(float32=2e-6, bfloat16=2e-2)


def run(given, interpret):
  queries, keys = blocks.labels_of(
    **{name: given.get(name) for name in ("stamp", "lo", "hi", "hidden", "own", "position")},
    window=given["window"],
  )
  names = ("cache_k", "cache_v", "lengths", "page_table", "kv_scales", "cache_position")
  cache = None if given["cache_k"] is None else Cache(*(given.get(name) for name in names))
  scale = given["q"].shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
  law = Law(scale, given["soft_cap"], given["window"])
  arguments = *(given[n] for n in "qkv"), queries, keys, cache, given.get("position"), law
  return jax.jit(lambda: tpu.run(*arguments, SMALL, interpret))()


@pytest.mark.parametrize(
  "name", [n if n in SOON else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_equals_the_oracle(name):
  given = inputs(CASES[name])
  close(run(given, True), oracle.attention(**given), TOLERANCE[CASES[name].dtype], name)


def test_heads_that_do_not_go_together_equal_the_oracle(monkeypatch):
  name = "int8 in pages"
  given = inputs(CASES[name])
  assert given["k"].shape[1] > 1
  monkeypatch.setattr(tpu, "_SCORES", 1)
  close(run(given, True), oracle.attention(**given), TOLERANCE[CASES[name].dtype], name)


@pytest.fixture
def interpreting():
  """The TPU interpreter as it is on two cores, with races found; what a failure leaves is gone."""
  pltpu.reset_tpu_interpret_mode_state()
  yield pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
  pltpu.reset_tpu_interpret_mode_state()


@pytest.mark.parametrize("name", ["pages in a window", pytest.param("own", marks=pytest.mark.slow)])
def test_two_cores_do_not_race(name, interpreting):
  given = inputs(CASES[name])
  close(run(given, interpreting), oracle.attention(**given), 2e-6, name)
  assert not interpreter.races.races_found


def test_its_gradient_is_that_of_the_blocks_in_xla():
  given = inputs(Case("content", entries=6, lengths=None))
  weights = jax.random.normal(jax.random.key(0), given["q"].shape)

  def loss(q, implementation):
    out, lse = frontier_attention(**given | dict(q=q), implementation=implementation)
    return jnp.vdot(weights, out) + jnp.sum(lse)

  found, expected = (
    jax.jit(jax.grad(functools.partial(loss, implementation=name)))(given["q"])
    for name in ("tpu_interpret", "reference")
  )
  np.testing.assert_allclose(found, expected, atol=5e-6, rtol=5e-5)


LOWERED = {
  "a token": Case("causal", entries=1, lengths=(0, 0)),
  "a tree": Case("tree", entries=16, lengths=(0, 0)),
  "a large tree in pages": Case("tree", entries=64, lengths=(0, 0), page=256),
  "pages in a window": Case("tree", entries=16, lengths=(0, 0), page=256, window=100),
  "int8": Case("tree", entries=16, lengths=(0, 0), page=256, cache_dtype="int8"),
  "training": Case("two_stream", entries=512, lengths=None),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LOWERED)
def test_lowers_for_a_tpu(name, dtype):
  case = LOWERED[name]
  given = {
    **inputs(Case(**vars(case) | dict(capacity=512, heads=8, kv_heads=2, width=128, dtype=dtype)))
  }
  arrays = {name: x for name, x in given.items() if isinstance(x, jax.Array | tuple)}
  rest = {name: x for name, x in given.items() if name not in arrays}
  program = jax.jit(lambda arrays: frontier_attention(**arrays, **rest, implementation="tpu"))
  lowered = export.export(program, platforms=["tpu"])(arrays)
  assert "frontier_attention" in lowered.mlir_module()
