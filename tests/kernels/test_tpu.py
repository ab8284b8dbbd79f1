"""The TPU kernel without a TPU: interpreted, watched for races, and lowered for the real one."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter
from jax.sharding import AbstractDevice, AbstractMesh

from kernels_pallas.frontier_attention import blocks, chosen, frontier_attention
from kernels_pallas.frontier_attention.cache_blocks import Cache
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.tpu import kernel as tpu
from kernels_pallas.frontier_attention.tpu import tiles as tpu_tiles
from tests.devices import TPUS, on
from tests.kernels import oracle, test_gradients
from tests.kernels.cases import Case, inputs
from tests.kernels.test_attention import CASES as ALL
from tests.kernels.test_attention import close

# Blocks of 8 fresh entries and 16 slots, tiles of 16 rows: several of each, the last ones short.
SMALL = tpu.TileSizes(8, 16, 16, cores=1)
SOON = (
  "tree", "documents_x_order", "own", "pages in a window", "int8 in pages", "no cache",
  "nothing to see", "bfloat16", "64 dimensions", "96 dimensions, int8",
  "128 dimensions",
)  # fmt: skip
# Heads that do not fill their lanes: their cache has its slots there.
NARROW = {
  "64 dimensions": Case("tree", entries=6, kv_heads=1, width=64),
  "80 dimensions in pages": Case("tree", lengths=(3, 21), page=8, width=80, window=6, soft_cap=1.5),
  "96 dimensions, int8": Case(
    "tree", entries=6, lengths=(7, 40), page=8, kv_heads=1, width=96, cache_dtype="int8"
  ),
  "96 dimensions, int8 on two cores": Case(
    "tree", entries=6, lengths=(7, 40), page=8, width=96, cache_dtype="int8"
  ),
  "64 dimensions, int8 in a row": Case("tree", width=64, cache_dtype="int8"),
  "80 dimensions, bfloat16": Case("tree", page=8, width=80, dtype="bfloat16"),
  "80 dimensions, no cache": Case("two_stream", lengths=None, width=80),
  "192 dimensions": Case("tree", width=192),
}
WHOLE = {  # The others' 8 do not either.
  "128 dimensions": Case("tree", entries=6, kv_heads=1, width=128),
  "128 dimensions, int8 pages in a window": Case(
    "tree", entries=6, lengths=(3, 21), page=8, window=6, width=128, cache_dtype="int8"
  ),
}
CASES = ALL | NARROW | WHOLE
TOLERANCE = dict(float32=2e-6, bfloat16=2e-2)


def run(given, interpret, sizes=SMALL):
  queries, keys = blocks.labels_of(
    **{name: given.get(name) for name in ("stamp", "lo", "hi", "hidden", "own", "position")},
    window=given["window"],
  )
  names = ("cache_k", "cache_v", "lengths", "page_table", "kv_scales", "cache_position")
  cache = None if given["cache_k"] is None else Cache(*(given.get(name) for name in names))
  scale = given["q"].shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
  scoring = Scoring(scale, given["soft_cap"], given["window"])
  arguments = *(given[n] for n in "qkv"), queries, keys, cache, given.get("position"), scoring
  return jax.jit(lambda: tpu.run(*arguments, sizes, interpret))()


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
  monkeypatch.setattr(tpu_tiles, "SCORES", 1)
  close(run(given, True), oracle.attention(**given), TOLERANCE[CASES[name].dtype], name)


TWO_CORES = ("128 dimensions, int8 pages in a window",)
TWO_CORES_SLOWLY = (
  "tree", "own", "a head each", "no cache", "nothing to see", "bfloat16", "64 dimensions",
  "96 dimensions, int8 on two cores", "80 dimensions in pages",
)  # fmt: skip


@pytest.mark.parametrize(
  "name", [*TWO_CORES, *(pytest.param(n, marks=pytest.mark.slow) for n in TWO_CORES_SLOWLY)]
)
def test_two_cores_share_the_heads_and_do_not_race(name, interpreting):
  """They share only heads that they divide: three key heads stay on one core."""
  given = inputs(CASES[name])
  found = run(given, interpreting, SMALL._replace(cores=2))
  close(found, oracle.attention(**given), TOLERANCE[CASES[name].dtype], name)
  assert not interpreter.races.races_found


@pytest.mark.parametrize("lengths", [None, (0, 21)], ids=["no cache", "over a cache"])
def test_has_a_gradient_by_name(lengths):
  given = jax.tree.map(test_gradients._clean, inputs(Case("content", entries=6, lengths=lengths)))
  names = "tpu_interpret", "reference"
  found, expected = (test_gradients.gradients(given, implementation=name) for name in names)
  for side, other in expected.items():
    np.testing.assert_allclose(found[side], other, atol=5e-6, rtol=5e-5, err_msg=side)


def test_more_and_wider_key_heads_get_lower_tiles():
  def rows(heads, width, dtype):
    q, k = (jax.ShapeDtypeStruct(s, dtype) for s in ((1, 512, 32, width), (1, heads, 512, width)))
    return tpu_tiles.fitting(q, k, None)[0]

  # As compiled for v4, with 16 MiB per kernel: where these are fewer, twice as many did not fit.
  assert [rows(heads, 128, jnp.bfloat16) for heads in (1, 8, 16, 32)] == [256, 256, 128, 64]
  assert [rows(8, width, jnp.float32) for width in (128, 256)] == [256, 128]


def test_pages_without_room_are_refused_where_there_is_none():
  q, k = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((8, 1, 32, 128), (8, 8, 1, 128)))
  pages = jax.ShapeDtypeStruct((33, 8, 2048, 128), jnp.bfloat16)
  cache = Cache(pages, pages, jnp.zeros(8, jnp.int32), jnp.zeros((8, 4), jnp.int32))
  # As compiled for both: 17.7 MiB are too many for the 16 of v4.
  for kind, name in (("TPU v4", "xla"), ("TPU v5 lite", "tpu")):
    device = AbstractDevice(device_kind=kind, num_cores=1, platform="tpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
      choice = chosen(q, k, cache)
      assert choice.name == name, choice
      assert name == "tpu" or "no room for pages of 2048 slots of 8 key heads" in choice.reason


def _large(mask, **how):
  return Case(mask, **dict(capacity=512, heads=8, kv_heads=2, width=128) | how)


LOWERED = {
  "a token": _large("causal", entries=1, lengths=(0, 0)),
  "a tree": _large("tree", entries=16, lengths=(0, 0)),
  "a large tree in pages": _large("tree", entries=64, lengths=(0, 0), page=256),
  "pages in a window": _large("tree", entries=16, lengths=(0, 0), page=256, window=100),
  "int8": _large("tree", entries=16, lengths=(0, 0), page=256, cache_dtype="int8"),
  "training": _large("two_stream", entries=512, lengths=None),
  "64 dimensions": _large("tree", entries=16, lengths=(0, 0), width=64),
  "96 dimensions, int8 in pages": _large(
    "tree", entries=16, lengths=(0, 0), page=256, cache_dtype="int8", width=96
  ),
  "training with 80 dimensions": _large("causal", entries=256, lengths=None, width=80),
}


def program_of(case, dtype, program):
  """Returns `program(arrays, attend)` with the TPU kernel, and its arrays."""
  given = inputs(dataclasses.replace(case, dtype=dtype))
  arrays = {name: x for name, x in given.items() if isinstance(x, jax.Array | tuple)}
  rest = {name: x for name, x in given.items() if name not in arrays}

  def attend(arrays):
    return frontier_attention(**arrays, **rest, implementation="tpu")

  return jax.jit(functools.partial(program, attend)), arrays


def lowered(*arguments):
  """Returns the program's module for a TPU."""
  run, arrays = program_of(*arguments)
  return export.export(run, platforms=["tpu"])(arrays).mlir_module()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LOWERED)
def test_lowers_for_a_tpu(name, dtype):
  assert "frontier_attention" in lowered(LOWERED[name], dtype, lambda attend, x: attend(x))


@pytest.mark.parametrize("name", ["a large tree in pages", "int8", "64 dimensions"])
def test_lowers_for_a_device_of_two_cores(name):
  with on("TPU v5"):
    assert "frontier_attention" in lowered(LOWERED[name], "bfloat16", lambda attend, x: attend(x))


@pytest.mark.parametrize("kind", TPUS)
def test_the_grid_has_an_axis_of_cores_where_there_are_two(kind):
  run, arrays = program_of(LOWERED["a token"], "bfloat16", lambda attend, x: attend(x))
  with on(kind):
    found = str(jax.make_jaxpr(run)(arrays))
  axes = re.findall(r"dimension_semantics=\((.*?),?\)", found)
  expected = ["'arbitrary'"] if TPUS[kind] == 1 else ["'parallel', 'arbitrary'"]
  assert axes == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_gradient_lowers_for_a_tpu(dtype):
  def program(attend, arrays):
    out, pull = jax.vjp(lambda qkv: attend(arrays | qkv), {name: arrays[name] for name in "qkv"})
    return pull(out)

  module = lowered(LOWERED["training"], dtype, program)
  # One of each: the forward is not run again.
  for kernel in ("frontier_attention", "frontier_attention_dq", "frontier_attention_dkv"):
    assert module.count(f'kernel_name = "{kernel}"') == 1, kernel
