"""The GPU kernel without a GPU: interpreted, watched for races, and lowered for the real one.

The interpreter runs the program's warpgroups as threads, with barriers and copies, and takes any
dtype and head dimension, so that float32 shows mistakes that bfloat16 would hide.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks as interpreter
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import AbstractDevice, AbstractMesh

from kernels_pallas.frontier_attention import blocks, chosen, frontier_attention
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.gpu import call as gpu
from kernels_pallas.frontier_attention.gpu import compat
from kernels_pallas.frontier_attention.score import Scoring
from tests.kernels import oracle
from tests.kernels.cases import Case, inputs
from tests.kernels.test_attention import CASES, close

# Before JAX 0.11 it compiles the program again for every block of threads: one case there.
SLOW_INTERPRETER = not hasattr(plgpu, "InterpretGPUParams")
# Two blocks of fresh entries and three of the cache in two parts; warpgroups of 16 rows.
SMALL = gpu.CallSizes(16, 16, 1, 2)
TWO = gpu.CallSizes(16, 16, 2, 2)
SOON = {
  "own": TWO,
  "pages in a window": SMALL,
  "int8 in pages": SMALL,
  "nothing to see": TWO,
  "lengths at the edges of blocks": TWO,
}
# Pages of 20 slots are not blocks of 16.
SIZES = SOON | {"large pages": TWO._replace(block=20)}
TOLERANCE = dict(float32=2e-6, bfloat16=2e-2)


def run(given, sizes, **settings):
  queries, keys = blocks.labels_of(
    **{name: given.get(name) for name in ("stamp", "lo", "hi", "hidden", "own", "position")},
    window=given["window"],
  )
  names = ("cache_k", "cache_v", "lengths", "page_table", "kv_scales", "cache_position")
  cache = None if given["cache_k"] is None else Cache(*(given.get(name) for name in names))
  scale = given["q"].shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
  scoring = Scoring(scale, given["soft_cap"], given["window"])
  arguments = *(given[n] for n in "qkv"), queries, keys, cache, given.get("position"), scoring
  interpret = compat.interpret_params(**settings)
  interpreter.reset_gpu_interpret_mode_state()  # a failure before may have left some state
  return jax.jit(lambda: gpu.run(*arguments, sizes, interpret))()


def _quick(name):
  return name in SOON and not SLOW_INTERPRETER


@pytest.mark.parametrize(
  "name", [n if _quick(n) else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_equals_the_oracle_without_races(name):
  given = inputs(CASES[name])
  found = run(given, SIZES.get(name, TWO), detect_races=True)
  close(found, oracle.attention(**given), TOLERANCE[CASES[name].dtype], name)
  assert not interpreter.get_races().races_found


ODD = {
  "pages that are no part of a block": (dict(page=24, capacity=48), gpu.CallSizes(16, 16, 1, 2)),
  "a length past the pages": (dict(page=24, capacity=24, lengths=(21,)), TWO),
}


@pytest.mark.skipif(SLOW_INTERPRETER, reason="one block of threads takes seconds")
@pytest.mark.parametrize("name", ODD)
def test_pages_and_blocks_of_any_sizes(name, monkeypatch):
  how, sizes = ODD[name]
  monkeypatch.setattr(gpu, "USUAL_BLOCK", 8)  # a block that does not divide the pages
  case = Case("tree", **dict(entries=12, lengths=(40,), heads=2, kv_heads=1) | how)
  given = inputs(case)
  expected = oracle.attention(**given)
  if case.capacity == 24:
    given["cache_k"], given["cache_v"] = (jnp.nan_to_num(given[n]) for n in ("cache_k", "cache_v"))
    expected = oracle.attention(**given | dict(lengths=jnp.asarray([24])))
    given["lengths"] = jnp.asarray([33])
  close(run(given, sizes, detect_races=True), expected, 2e-6, name)


def test_pages_that_no_block_divides_are_refused():
  given = inputs(CASES["large pages"])
  with pytest.raises(ValueError, match="pages of 20 slots are no whole blocks of 64, nor parts"):
    frontier_attention(**given, implementation="gpu_interpret")


def test_a_row_in_two_parts():
  """One case that is fast on every version of JAX."""
  case = Case("tree", entries=12, lengths=(21,), heads=1, kv_heads=1)
  given = inputs(case)
  found = run(given, gpu.CallSizes(16, 16, 1, 2), detect_races=True)
  close(found, oracle.attention(**given), 2e-6, "tree")
  assert not interpreter.get_races().races_found


LOWERED = {
  "a token": Case("causal", entries=1, lengths=(0, 0)),
  "a tree": Case("tree", entries=16, lengths=(0, 0)),
  "a large tree in pages": Case("tree", entries=64, lengths=(0, 0), page=64),
  "pages in a window": Case("own", entries=16, lengths=(0, 0), page=16, window=100),
  "int8": Case("tree", entries=16, lengths=(0, 0), page=128, cache_dtype="int8"),
  "float8": Case("tree", entries=16, lengths=(0, 0), cache_dtype="float8_e4m3fn", soft_cap=30.0),
  "training": Case("two_stream", entries=512, lengths=None),
  "wide": Case("tree", entries=16, lengths=(0, 0), width=256),
  "narrow": Case("tree", entries=16, lengths=(0, 0), width=80),
}


@pytest.mark.parametrize("name", LOWERED)
def test_lowers_for_a_gpu(name):
  case = LOWERED[name]
  width = 128 if case.width == 8 else case.width
  sizes = dict(capacity=512, heads=8, kv_heads=2, width=width, dtype="bfloat16")
  given = inputs(Case(**vars(case) | sizes))
  arrays = {name: x for name, x in given.items() if isinstance(x, jax.Array | tuple)}
  rest = {name: x for name, x in given.items() if name not in arrays}
  program = jax.jit(lambda arrays: frontier_attention(**arrays, **rest, implementation="gpu"))
  device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
  with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
    unchecked = [export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]
    lowered = export.export(program, platforms=["cuda"], disabled_checks=unchecked)(arrays)
  assert "mosaic_gpu_v2" in lowered.mlir_module()


REFUSED = {
  "computes in float16 or bfloat16, not float32": dict(dtype="float32"),
  "multiples of 16 up to 256 dimensions, not 72": dict(width=72),
  "rows of a multiple of 8 slots, not 510": dict(capacity=510),
  "pages of 8 slots and more, .* not 24": dict(page=24, capacity=480),
  "pages of 32 slots and more, .* not 16": dict(page=16, cache_dtype="int8"),
  "8-bit heads of up to 208 dimensions, not 256": dict(width=256, cache_dtype="int8"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_it_cannot_do_is_refused(message):
  usual = dict(entries=4, lengths=(0, 0), capacity=512, width=128, dtype="bfloat16")
  given = inputs(Case("tree", **usual | REFUSED[message]))
  with pytest.raises(ValueError, match=f"the GPU kernel .*{message}"):
    frontier_attention(**given, implementation="gpu")


def test_the_default_takes_it_on_a_hopper():
  q, k = (jnp.zeros(shape, jnp.bfloat16) for shape in ((1, 4, 8, 128), (1, 2, 4, 128)))
  for kind, name in (("NVIDIA H200", "gpu"), ("NVIDIA A100-SXM4-80GB", "xla")):
    device = AbstractDevice(device_kind=kind, num_cores=None, platform="gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
      assert chosen(q, k).name == name, kind
      assert "intervals of 4 dimensions, not 5" in chosen(q, k, dims=5).reason or name == "xla"


def test_parts_keep_all_cores_busy():
  """One row and 8 heads over 32k slots: 8 programs would leave 124 of 132 cores idle."""
  assert 8 * gpu._parts(8, 512) >= 2 * 132 // 3
  assert 120 <= gpu._parts(1, 2048) <= 132
  assert gpu._parts(264, 512) == 1
  assert gpu._parts(1, 1) == 1


def test_its_gradient_is_that_of_the_blocks_in_xla():
  case = Case("content", entries=6, lengths=None, heads=1, kv_heads=1)
  given = inputs(Case(**vars(case)))
  given = given | {name: given[name][:1] for name in ("q", "k", "v", "stamp", "lo", "hi")}
  weights = jax.random.normal(jax.random.key(0), given["q"].shape)

  def loss(q, implementation):
    out, lse = frontier_attention(**given | dict(q=q), implementation=implementation)
    return jnp.vdot(weights, out) + jnp.sum(lse)

  found, expected = (
    jax.jit(jax.grad(lambda q, name=name: loss(q, name)))(given["q"])
    for name in ("gpu_interpret", "reference")
  )
  np.testing.assert_allclose(found, expected, atol=5e-6, rtol=5e-5)
