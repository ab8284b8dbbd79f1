"""A mesh from a config's text, and where caches and states lie on it."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from mtjax import sharding
from mtjax.cache import allocate, cache_shardings
from mtjax.rounds.state import DecodeState, decode_shardings
from tests.sharding.test_rules import CONFIG

MESH = AbstractMesh((2, 4, 2), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.mark.parametrize(
  "setting", ["data:1", " model:1 , data:1", {"sequence": 1}, (1, 1), [1, 1, 1]]
)
def test_all_forms_name_a_mesh_with_all_axes(setting):
  mesh = sharding.parse_mesh(setting)
  assert mesh is not None
  assert dict(mesh.shape) == dict(data=1, model=1, sequence=1)
  assert set(mesh.axis_types) == {AxisType.Auto}
  assert sharding.parse_mesh(mesh) is mesh
  assert sharding.parse_mesh(sharding.describe_mesh(mesh)) == mesh


@pytest.mark.parametrize("setting", [None, "", "  "])
def test_no_mesh(setting):
  assert sharding.parse_mesh(setting) is None


REFUSED = {
  "data:2,stage:4": "data, model, sequence, not 'stage'",
  "data:1,data:1": "names the axis 'data' twice",
  "data": "the axis 'data' needs a number of devices, such as 'data:2'",
  "data=2": "data, model, sequence, not 'data=2'",
  "model:two": "the axis 'model' needs a number of devices",
  "data:+-2": "the axis 'data' needs a number of devices",
  "data:0": "must be at least 1, got data:0,model:1,sequence:1",
  "model:-2": "must be at least 1, got data:1,model:-2",
  "data:64,model:2": "needs 128 devices, but there are 1; on a CPU, .*jax_num_cpu_devices",
}


@pytest.mark.parametrize("text", REFUSED)
def test_bad_texts_are_refused(text):
  with pytest.raises(ValueError, match=REFUSED[text]):
    sharding.parse_mesh(text)


@pytest.mark.parametrize("setting", [4, (2,), (1, 1, 1, 1), {"rows": 2}, {"data": 1.5}])
def test_bad_values_are_refused(setting):
  with pytest.raises(ValueError, match="mesh"):
    sharding.parse_mesh(setting)


def test_a_mesh_of_ones_own_has_these_axes():
  for made in (jax.make_mesh((1,), ("x",)), jax.make_mesh((1, 1, 1), sharding.AXES)):
    with pytest.raises(ValueError, match="all of type Auto; this one has .*make_mesh"):
      sharding.parse_mesh(made)


def cache_of(batch, heads, capacity):
  return jax.eval_shape(lambda: allocate(batch=batch, capacity=capacity, heads=[heads], head_dim=8))


@pytest.mark.parametrize(
  ("batch", "heads", "capacity", "spec"),
  [
    (4, 8, 32, P("data", "model", "sequence", None)),
    (4, 2, 32, P("data", None, "sequence", None)),
    (1, 4, 33, P(None, "model", None, None)),
  ],
)
def test_what_the_mesh_does_not_divide_is_whole(batch, heads, capacity, spec):
  places = cache_shardings(cache_of(batch, heads, capacity), MESH)
  assert places.layers[0].k.spec == places.layers[0].v.spec == spec
  assert places.position.spec == P(spec[0], spec[2])
  assert places.length.spec == P(spec[0])


def test_a_state_lies_by_rows_and_its_caches_by_heads():
  cache = cache_of(4, CONFIG.kv_heads * 2, 16)
  rows = jax.ShapeDtypeStruct((4,), jnp.int32)
  tokens = jax.ShapeDtypeStruct((4, 6), jnp.int32)
  state = DecodeState(cache, tokens, tokens, rows, rows, rows, rows, None, method=dict(own=cache))
  places = decode_shardings(state, MESH)
  assert places.tokens.spec == places.count.spec == P("data")
  assert places.cache == places.method["own"] == cache_shardings(cache, MESH)


def test_padded_rows_repeat_the_last_one():
  assert [sharding.padded_rows(n, MESH) for n in (1, 2, 3)] == [2, 2, 4]
  assert sharding.padded_rows(3, None) == 3
  padded = sharding.pad_rows(dict(a=jnp.arange(3)), 4)["a"]
  assert padded.tolist() == [0, 1, 2, 2]
