"""The rules of sharding decide from paths and shapes alone."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from mtjax import sharding
from mtjax.models import Model, TransformerConfig, uniform_layers

CONFIG = TransformerConfig(
  vocab_size=32, dim=16, heads=4, kv_heads=2, head_dim=8, mlp_dim=24, layers=uniform_layers(1)
)


def test_every_parameter_of_every_variant_has_a_rule():
  variants = (
    dict(),
    dict(tied=False, qk_norm="full", norm_placement="post"),
    dict(norm_placement="sandwich", norm="rms_plus_one", qk_norm="head"),
    dict(mlp="plain", norm="layer", learned_positions=8, out_bias=True),
    dict(target_conditioning="adaptive_norm", predicts="any_subset"),
  )
  mesh = sharding.make_mesh()
  for fields in variants:
    config = TransformerConfig(
      **{**vars(CONFIG), **dict(qkv_bias=True, mlp_bias=True, extra_embeddings=1), **fields}
    )
    sharding.param_shardings(Model(config).shapes(), mesh)


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


def test_a_mesh_larger_than_the_machine_is_an_error():
  with pytest.raises(ValueError, match=f"needs {2 * len(jax.devices())} devices"):
    sharding.make_mesh(2 * len(jax.devices()), 1)


def test_a_batch_that_does_not_divide_is_an_error():
  class Two:
    shape = dict(data=2)

  with pytest.raises(ValueError, match="3 rows does not divide over 2"):
    sharding.check_rows(3, Two())
