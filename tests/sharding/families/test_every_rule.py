"""Every parameter that a registered run can train, and every state of it, has a sharding rule."""

import dataclasses
import functools
import importlib
import typing

import jax
import pytest
from jax.sharding import PartitionSpec as P

from mtjax import sharding
from mtjax.models import (
  Config,
  DiffusionGemmaConfig,
  Model,
  TransformerConfig,
  XLNetConfig,
  uniform_layers,
)
from mtjax.models.diffusion_gemma.config import CanvasLayer
from mtjax.models.lora import LoraConfig, init_lora
from mtjax.models.quantize import to_int8
from mtjax.sharding import DATA, MODEL
from mtjax.train import config as config_lib
from mtjax.train.losses.registry import OBJECTIVES
from mtjax.train.optimizers import OPTIMIZERS, OptimizerConfig, Schedule, make_optimizer
from mtjax.train.step import init_state

CAUSAL = TransformerConfig(
  vocab_size=32, dim=16, heads=4, kv_heads=2, head_dim=8, mlp_dim=24, layers=uniform_layers(2)
)
ANY_SUBSET = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
# What a choice of a field needs in other fields.
NEEDS: dict[tuple[str, object], dict] = {
  ("target_conditioning", "added"): ANY_SUBSET,
  ("target_conditioning", "adaptive_norm"): ANY_SUBSET,
  ("any_subset_rows", "set_diffusion"): ANY_SUBSET,
  ("any_subset_rows", "eso"): ANY_SUBSET,
  ("alignment", "shifted"): dict(predicts="masked"),
  ("noise", "uniform"): dict(predicts="masked"),
  ("noise", "hybrid"): dict(predicts="masked", extra_embeddings=1, extra_names=("mask",)),
}
OTHERS: dict[type, Config] = {
  XLNetConfig: XLNetConfig(vocab_size=32, dim=16, heads=4, head_dim=4, mlp_dim=24, depth=1),
  DiffusionGemmaConfig: DiffusionGemmaConfig(
    vocab_size=32, dim=16, heads=4, mlp_dim=24, experts=4, top_experts=2, expert_dim=8,
    layers=(CanvasLayer(2, 8), CanvasLayer(1, 8, values="keys")), tied=False,
  ),
}  # fmt: skip


def variants() -> dict[str, Config]:
  """Returns a transformer with each choice of each field that has some, and the other networks."""
  biases = dict(qkv_bias=True, mlp_bias=True, out_bias=True)
  out: dict[str, Config] = {
    "biases": dataclasses.replace(CAUSAL, tied=False, head_bias=True, **biases),
    "learned": dataclasses.replace(CAUSAL, learned_positions=8, extra_embeddings=1),
  }
  for name, hint in typing.get_type_hints(TransformerConfig).items():
    # Which kernel runs changes no parameter, and some run on their own chips only.
    if typing.get_origin(hint) is typing.Literal and name != "attention":
      for value in typing.get_args(hint):
        fields = NEEDS.get((name, value), {}) | {name: value}
        out[f"{name} {value}"] = dataclasses.replace(CAUSAL, **fields)
  return out | {config.kind: config for config in OTHERS.values()}


@functools.cache
def mesh():
  return jax.sharding.AbstractMesh(
    (1, 2), (DATA, MODEL), axis_types=(jax.sharding.AxisType.Auto,) * 2
  )


def specs(tree) -> dict[str, P]:
  flat = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): x.spec for path, x in flat}


@pytest.mark.parametrize("name", variants())
def test_every_parameter_of_every_network_has_a_rule(name):
  shapes = Model(variants()[name]).shapes()
  lora = LoraConfig(rank=2, targets=(".*",), trained=(".*",))
  adapters = jax.eval_shape(lambda x: init_lora(lora, x, jax.random.key(0)), shapes)
  for params in (shapes, adapters, jax.eval_shape(to_int8, shapes)):
    assert specs(sharding.param_shardings(params, mesh()))


def test_networks_of_all_kinds_are_among_them():
  kinds = {config.kind for config in typing.get_args(Config)}
  assert {config.kind for config in variants().values()} == kinds


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loop", ["unrolled", "scanned"])
def test_every_state_of_every_optimizer_is_sharded_as_its_parameter(optimizer, loop):
  model = Model(dataclasses.replace(CAUSAL, layer_loop=loop))
  made = make_optimizer(OptimizerConfig(name=optimizer), Schedule(9, 0, 0))
  params = model.shapes()
  state = jax.eval_shape(lambda x: init_state(model, made, seed=0, ema=0.9, params=x), params)
  found = specs(sharding.state_shardings(state, params, mesh()))
  moments = 0
  for path, partition in specs(sharding.param_shardings(params, mesh())).items():
    own = [spec for name, spec in found.items() if name.endswith(f"/{path}")]
    assert set(own) == {partition}
    moments += len(own) - 2  # without the parameter and its average
  assert moments >= len(jax.tree.leaves(params))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_model_that_an_objective_is_registered_for_has_rules(name):
  file = OBJECTIVES[name].config
  config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config()
  config.objective, config.init = name, ""
  config.data.sources = ("builtin:tinyshakespeare",)
  settings = config_lib.read(config)
  assert specs(sharding.param_shardings(settings.model.shapes(), mesh()))
