"""The rules of sharding decide from paths and shapes alone."""

import dataclasses

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from mtjax import sharding
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.train import loop

CONFIG = TransformerConfig(
  vocab_size=32, dim=16, heads=4, kv_heads=2, head_dim=8, mlp_dim=24, layers=uniform_layers(1)
)


def mesh_of(*sizes: int) -> AbstractMesh:
  return AbstractMesh(sizes, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def test_a_path_without_a_rule_is_an_error():
  with pytest.raises(ValueError, match="no sharding rule matches parameter 'layer_0/router'"):
    sharding.spec("layer_0/router")


def test_the_first_match_wins():
  rules = ((r"qkv/kernel$", P("data")), (r".*", P("model")))
  assert sharding.spec("layer_0/attention/qkv/kernel", rules) == P("data")
  assert sharding.spec("layer_0/mlp/down/kernel", rules) == P("model")


def test_a_rule_does_not_match_inside_a_name():
  with pytest.raises(ValueError, match="my_head/kernel"):
    sharding.spec("my_head/kernel")


def test_the_first_axis_of_a_stack_is_whole():
  assert sharding.spec("stack_0/mlp/down/kernel") == P(None, "model", None)
  assert sharding.spec("layer_0/mlp/down/kernel") == P("model", None)


def test_an_array_of_a_state_without_a_rule_is_an_error():
  mesh = mesh_of(1, 2)
  params = {"mlp": {"down": {"kernel": jax.ShapeDtypeStruct((4, 6), "float32")}}}
  state = dict(count=jax.ShapeDtypeStruct((), "int32"), mu=params)
  found = sharding.state_shardings(state, params, mesh)
  assert found["mu"]["mlp"]["down"]["kernel"].spec == P("model", None)
  # Adafactor's moments are sums over an axis of the parameter.
  state["rows"] = {"mlp": {"down": {"kernel": jax.ShapeDtypeStruct((4,), "float32")}}}
  with pytest.raises(ValueError, match="no sharding rule matches 'rows/mlp/down/kernel'"):
    sharding.state_shardings(state, params, mesh)


def test_what_the_mesh_does_not_divide_is_named():
  mesh = mesh_of(2, 3)
  params = Model(CONFIG).shapes()
  assert set(sharding.undivided(params, mesh)) == {
    "embedding/table",
    "layer_0/attention/qkv/kernel",
    "layer_0/attention/out/kernel",
  }
  note = sharding.undivided_note(params, mesh)
  assert note is not None and "data:2,model:3 does not divide 3 arrays" in note
  assert note.endswith("embedding/table, attention/out/kernel, attention/qkv/kernel")
  assert sharding.undivided_note(params, mesh_of(2, 2)) is None


def test_key_heads_are_named_where_columns_divide_and_heads_do_not():
  sizes = dict(dim=64, heads=9, kv_heads=3, head_dim=64, mlp_dim=64)  # SmolLM2's heads
  model = Model(dataclasses.replace(CONFIG, **sizes))
  (note,) = loop.mesh_notes(model, mesh_of(1, 2))
  assert note.startswith("3 key/value heads do not divide over the 2 devices of the axis 'model'")
  assert note.endswith("of all heads of the model")
  assert loop.mesh_notes(model, mesh_of(2, 1)) == []


def test_a_mesh_larger_than_the_machine_is_an_error():
  with pytest.raises(ValueError, match=f"needs {2 * len(jax.devices())} devices"):
    sharding.make_mesh(2 * len(jax.devices()), 1)
