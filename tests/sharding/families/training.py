"""Run by test_training.py in a process with eight CPU devices; prints {name: difference}."""

import dataclasses
import importlib
import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402
import optax  # noqa: E402

from mtjax import sharding  # noqa: E402
from mtjax.anysubset.masking import Masking  # noqa: E402
from mtjax.models import Model, TransformerConfig, XLNetConfig, uniform_layers  # noqa: E402
from mtjax.models.diffusion_gemma.config import CanvasLayer, DiffusionGemmaConfig  # noqa: E402
from mtjax.models.lora import LoraConfig  # noqa: E402
from mtjax.train import config as config_lib  # noqa: E402
from mtjax.train.losses.any_subset import any_subset_loss  # noqa: E402
from mtjax.train.losses.next_token import next_token_loss  # noqa: E402
from mtjax.train.losses.registry import OBJECTIVES  # noqa: E402
from mtjax.train.optimizers import (  # noqa: E402
  OPTIMIZERS,
  OptimizerConfig,
  Schedule,
  make_optimizer,
)
from mtjax.train.step import init_state, make_step  # noqa: E402
from mtjax.train.trained import Adaptation, join_of, trained_shapes  # noqa: E402

ROWS, LENGTH = 8, 12
MESHES = {"2 x 2": (2, 2), "2 x 4": (2, 4)}
CAUSAL = TransformerConfig(
  vocab_size=32, dim=16, heads=4, kv_heads=2, head_dim=8, mlp_dim=24, layers=uniform_layers(2)
)
# Its experts, and its projections of queries, keys and values are parameters of their own.
EXPERTS = DiffusionGemmaConfig(
  vocab_size=32,
  dim=16,
  heads=4,
  mlp_dim=24,
  experts=4,
  top_experts=2,
  expert_dim=8,
  layers=(CanvasLayer(kv_heads=2, head_dim=8),),
)


def batch(vocab: int):
  """Returns packed rows of two documents; the last row is padding."""
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(0, vocab, (2, ROWS, LENGTH))
  segment = np.repeat(np.array([[1] * 7 + [2] * 5]), ROWS, axis=0)
  segment[-1] = 0
  position = np.where(segment == 2, np.arange(LENGTH) - 7, np.arange(LENGTH))
  ints = dict(tokens=tokens, targets=targets, segment=segment, position=position)
  out = {name: x.astype(np.int32) for name, x in ints.items()}
  return out | dict(weight=(segment > 0).astype(np.float32))


def distinct(shapes):
  """Returns parameters without zeros or ones, so that one in a wrong place is seen."""
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: rng.normal(0.05, 0.3, x.shape).astype(np.float32), shapes)


def difference(one, other) -> float:
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def stepped(model, loss, optimizer, meshes, *, accumulate=1, adaptation=None, ema=0.0):
  """Returns how much state and metrics of a step differ on each of the meshes."""
  trained = distinct(trained_shapes(model, adaptation))
  frozen = None if adaptation is None else distinct(model.shapes())
  state = init_state(model, optimizer, seed=0, ema=ema, params=trained)
  step = make_step(loss, optimizer, accumulate=accumulate, ema=ema, join=join_of(adaptation))
  rows = batch(model.config.vocab_size)
  expected = jax.jit(step)(state, rows, frozen)
  out = {}
  for name in meshes:
    mesh = sharding.make_mesh(*MESHES[name])
    shardings = sharding.state_shardings(state, trained, mesh)
    there = None if frozen is None else sharding.shard_params(frozen, mesh)
    arguments = (
      jax.device_put(state, shardings),
      jax.device_put(rows, sharding.batch_sharding(mesh)),
      there,
    )
    with jax.set_mesh(mesh):
      found = jax.jit(step, out_shardings=(shardings, None))(*arguments)
    out[name] = difference(expected, found)
  return out


def objectives(some: list[str]):
  """The smallest run of a row's config; a step of SGD is as large as the gradient.

  some: objectives that take a step on one mesh each; none: all of them, on all meshes.
  """
  names = list(MESHES)
  for number, name in enumerate(some or OBJECTIVES):
    row = OBJECTIVES[name]
    config = importlib.import_module(row.config.removesuffix(".py").replace("/", ".")).tiny()
    config.objective, config.init = name, ""
    config.data.sources = ("builtin:tinyshakespeare",)
    settings = config_lib.read(config)
    meshes = names[number % 2 :][:1] if some else names
    yield f"objective {name}", stepped(settings.model, settings.loss, optax.sgd(1.0), meshes)


def optimizers():
  """Parameters are in stacks, whose first axis is the number of the layer, and averaged."""
  model = Model(dataclasses.replace(CAUSAL, layer_loop="scanned"))
  for number, name in enumerate(OPTIMIZERS):
    optimizer = make_optimizer(OptimizerConfig(name=name), Schedule(steps=10, warmup=0, decay=0))
    mesh = [list(MESHES)[number % 2]]
    loss = next_token_loss(model)
    yield f"optimizer {name}", stepped(model, loss, optimizer, mesh, accumulate=2, ema=0.9)


def adapters():
  """Adapters of every map, and a table that is trained whole, over frozen weights."""
  model = Model(dataclasses.replace(CAUSAL, tied=False, layers=uniform_layers(1)))
  lora = LoraConfig(rank=2, targets=(".*",), trained=("embedding/table",))
  settings = dict(adaptation=Adaptation(lora))
  yield "adapters", stepped(model, next_token_loss(model), optax.sgd(1.0), ["2 x 2"], **settings)


def networks():
  """Experts; and an XLNet whose 3 heads and 35 tokens no mesh divides."""
  model = Model(EXPERTS)
  yield "experts", stepped(model, next_token_loss(model), optax.sgd(1.0), ["2 x 4"])
  model = Model(
    XLNetConfig(vocab_size=35, dim=12, heads=3, head_dim=4, mlp_dim=24, depth=1, dtype="float32")
  )
  loss = any_subset_loss(model, Masking())
  yield "xlnet", stepped(model, loss, optax.sgd(1.0), ["2 x 4"], accumulate=2)


def mistake():
  """A loss of which each device computes only the sum of its own rows."""
  model, mesh = Model(dataclasses.replace(CAUSAL, layers=uniform_layers(1))), sharding.make_mesh(2)
  loss = next_token_loss(model)
  specs = sharding.P(), sharding.P(sharding.DATA)
  apart = jax.shard_map(
    loss.total, mesh=mesh, in_specs=specs, out_specs=sharding.P(), check_vma=False
  )
  params, rows = distinct(model.shapes()), batch(model.config.vocab_size)
  return difference(jax.jit(loss.total)(params, rows), jax.jit(apart)(params, rows))


def main(some: list[str]) -> None:
  assert len(jax.devices()) == 8
  out = {}
  for case, found in (*objectives(some), *optimizers(), *adapters(), *networks()):
    out |= {f"{case} on {mesh}": value for mesh, value in found.items()}
  json.dump(out | {"mistake": mistake()}, sys.stdout)


if __name__ == "__main__":
  main(sys.argv[1:])
