"""Attention split over four devices equals that of one; unsupported splits are refused."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from kernels_pallas.frontier_attention import chosen
from mtjax.models.attention import attention, sharded_attention
from mtjax.sharding import DATA, FEW_KEY_HEADS, MODEL, Pages, Split
from tests.kernels.cases import Case, inputs
from tests.sharding.processes import printed_by

HEADS = (
  "contiguous, 2 x 2",
  "pages, 2 x 2",
  "int8 in pages of its rows, 2 x 2",
  "int8, 1 x 4",
  "two key heads, pages in a window, 1 x 4",
  "one key head, no cache, 1 x 4",
  "window, 4 x 1",
  "pages of its rows in a window, 4 x 1",
)
SLOTS = (
  "slots",
  "slots and heads",
  "slots and rows",
  "slots, int8 in a window",
  "slots of shared pages",
  "slots of pages, rows",
)
EQUAL = (
  *HEADS,
  *SLOTS,
  *(f"kernel over {kind}" for kind in ("rows and heads", "slots and heads")),
  *(f"gradient over {kind}" for kind in ("rows and heads", "two key heads", "slots and heads")),
  *(f"default of {rows} rows" for rows in (4, 1)),
)
NONE = (
  *(f"collectives: {name}" for name in HEADS),
  *(f"not reductions: {name}" for name in SLOTS),
  *(f"bytes reduced over the limit: {name}" for name in SLOTS),
  *(f"not wrapped: {rows} rows where there is a kernel" for rows in (4, 1)),
  *(f"wrapped: {rows} rows where there is none" for rows in (4, 1)),
  "rows that name another's page, and only they, are NaN",
)
SEEN = ("seen: parts merged by their mean", "seen: fresh entries seen by every shard")


@pytest.fixture(scope="module")
def found():
  return printed_by("attention_on_four.py")


def test_nothing_that_was_measured_is_left_out(found):
  assert set(found) == {*EQUAL, *NONE, *SEEN}


@pytest.mark.parametrize("name", EQUAL)
def test_equals_one_device(found, name):
  assert found[name] < 1e-5, f"{name}: differs by {found[name]}"


@pytest.mark.parametrize("name", NONE)
def test_there_are_none(found, name):
  assert found[name] == 0, f"{name}: {found[name]}"


@pytest.mark.parametrize("name", SEEN)
def test_a_mistake_is_seen(found, name):
  assert found[name] > 1e-2, f"{name}: differs by {found[name]} only"


def test_no_axes_but_those_of_the_mesh_are_refused():
  mesh = AbstractMesh((4,), ("stage",), axis_types=(AxisType.Auto,))
  with pytest.raises(ValueError, match="there is no axis 'data'"):
    sharded_attention(**inputs(Case("tree")), mesh=mesh)


PAGED = dict(lengths=(8, 16), page=8)
REFUSED = {
  "3 rows do not divide over 2": (Case("tree", lengths=(1, 2, 3)), Split()),
  "6 query heads in 3 groups do not divide over 4": (Case("tree", heads=6, kv_heads=3), Split()),
  "2 query heads in 2 groups do not divide over 4": (Case("tree", heads=2), Split()),
  "42 slots do not divide over 4": (Case("tree", capacity=42), FEW_KEY_HEADS),
  "the 5 pages of a row do not divide over 4": (Case("tree", **PAGED), FEW_KEY_HEADS),
  "13 pages do not divide over 2 shards: add": (Case("tree", **PAGED), Split(pages=Pages.OWN)),
  "one of rows, heads and slots, not two": (Case("tree"), Split(slots=MODEL)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_divide_is_refused(message):
  case, split = REFUSED[message]
  mesh = AbstractMesh((2, 4), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)
  with pytest.raises(ValueError, match=message):
    sharded_attention(**inputs(case), mesh=mesh, split=split)


TPU = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")


def mesh_of(kind: AxisType, *sizes: int) -> AbstractMesh:
  return AbstractMesh(sizes, (DATA, MODEL), axis_types=(kind,) * 2, abstract_device=TPU)


def test_a_kernel_is_chosen_for_what_is_a_devices_own():
  q, k = jnp.zeros((2, 4, 8, 128), jnp.bfloat16), jnp.zeros((2, 4, 4, 128), jnp.bfloat16)
  for kind, sizes, name in (
    (AxisType.Auto, (2, 2), "xla"),
    (AxisType.Auto, (1, 1), "tpu"),
    (AxisType.Manual, (2, 2), "tpu"),
  ):
    with jax.sharding.use_abstract_mesh(mesh_of(kind, *sizes)):
      assert chosen(q, k).name == name, f"{kind} {sizes}"
  with jax.sharding.use_abstract_mesh(mesh_of(AxisType.Auto, 2, 2)):
    assert "on a mesh the TPU kernel must be called under shard_map" in chosen(q, k).reason


def equations(jaxpr):
  """Yields the equations of a program and of all that it calls."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
      if hasattr(inner, "eqns"):
        yield from equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize(
  "rows, heads, width, part",
  [(4, 8, 128, (2, 1)), (3, 8, 128, (3, 1)), (4, 6, 128, (2, 3)), (4, 8, 96, None)],
)
def test_the_default_on_tpus_is_the_kernel_on_each_devices_part(rows, heads, width, part):
  """A part has its rows and key heads; those that the mesh does not divide are whole."""
  kind = Case("tree", lengths=(9,) * rows, heads=heads, kv_heads=heads // 2, width=width)
  given = inputs(kind)
  arrays = {name: x for name, x in given.items() if isinstance(x, jax.Array)}
  with jax.sharding.use_abstract_mesh(mesh_of(AxisType.Auto, 2, 4)):
    program = jax.make_jaxpr(lambda arrays: attention(**arrays))(arrays)
  called = [e for e in equations(program.jaxpr) if e.primitive.name in ("shard_map", "pallas_call")]
  names = ["shard_map"] + ["pallas_call"] * (part is not None)
  assert [e.primitive.name for e in called] == names
  if part is not None:
    assert called[1].outvars[0].aval.shape[:2] == part
