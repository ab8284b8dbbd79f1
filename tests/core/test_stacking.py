"""Layers in one scan compute what unrolled layers do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as builders
from mtjax.models import Layer, Model, Rope, TransformerConfig
from mtjax.models.stacking import Stacks, scanned, stack_params
from tests.compiled import Compiled

F = Compiled(builders)
WINDOWED, FULL = Layer(window=3), Layer(rope=Rope(theta=500.0))
TOLERANCE = 2e-6


def _model(layers):
  config = TransformerConfig(
    vocab_size=31, dim=16, heads=4, kv_heads=2, head_dim=8, mlp_dim=24, layers=tuple(layers),
    norm_placement="sandwich",
  )  # fmt: skip
  return Model(config)


@pytest.mark.parametrize(
  "layers, kinds, count",
  [
    ([FULL] * 4, 1, 4),
    ([WINDOWED, FULL] * 2, 2, 2),
    ([WINDOWED, WINDOWED, FULL] * 2 + [WINDOWED], 3, 2),
    ([FULL], 1, 0),
    ([FULL, FULL, WINDOWED], 1, 0),
  ],
)
def test_the_shortest_period_is_found(layers, kinds, count):
  assert Stacks.of(scanned(_model(layers).config)) == (kinds, count)
  assert Stacks.of(_model(layers).config).count == 0


@pytest.mark.parametrize(
  "layers", [[FULL] * 2, [WINDOWED, FULL] * 2 + [WINDOWED]], ids=["one kind", "a period"]
)
def test_a_scan_equals_unrolled_layers_over_a_growing_cache(layers):
  model = _model(layers)
  stacked = Model(scanned(model.config))
  params = model.init(jax.random.key(3))
  tokens = np.random.default_rng(0).integers(0, 31, (2, 9))

  def passes(model, params, tokens, lengths):
    prefix = builders.causal(tokens[:, :6], length=lengths)
    read = model.forward(params, prefix)
    path = jnp.broadcast_to(jnp.arange(6), (2, 6))
    cache = model.allocate(2, 11).commit(read.kv, prefix.position, path, lengths)
    tree = builders.tree(tokens[:, 6:], jnp.asarray([[-1, 0, 0]] * 2), start=cache.length)
    drafts = model.forward(params, tree, cache)
    path = jnp.asarray([[0, 2], [0, 1]])
    cache = cache.commit(drafts.kv, tree.position, path, jnp.asarray([2, 1]))
    last = builders.causal(tokens[:, :1], start=cache.length)
    return read.logits, drafts.logits, model.forward(params, last, cache).logits

  compiled = jax.jit(passes, static_argnums=0)
  inputs = jnp.asarray(tokens), jnp.asarray([6, 3])
  one = compiled(model, params, *inputs)
  other = compiled(stacked, stack_params(params, Stacks.of(stacked.config)), *inputs)
  for mine, theirs in zip(one, other, strict=True):
    np.testing.assert_allclose(mine, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
  "layers",
  [pytest.param([FULL] * 3, marks=pytest.mark.slow), [WINDOWED, FULL] * 2],
  ids=["one kind", "a period"],
)
def test_a_masked_model_multiplies_the_chosen_entries_alone_in_its_last_layer(layers):
  config = scanned(_model(layers).config)
  masked = Model(dataclasses.replace(config, predicts="masked"))
  params = masked.init(jax.random.key(3))
  tokens = np.random.default_rng(0).integers(0, 31, (2, 11))
  rows = jnp.asarray([[2, 0], [4, 4]])
  prefix = F.bidirectional(tokens[:, :6])
  path = jnp.broadcast_to(jnp.arange(6), (2, 6))
  read = jax.jit(masked.forward)(params, prefix)
  cache = masked.allocate(2, 11).commit(read.kv, prefix.position, path, jnp.asarray([6, 3]))
  rest = F.bidirectional(tokens[:, 6:], start=cache.length)

  def lowered(model):
    return jax.jit(model.forward).lower(params, rest, cache, rows)

  def gate_up_is_of_rows(program):
    shape = "x".join(map(str, (*rows.shape, 2 * config.mlp_dim)))
    return f"tensor<{shape}xf32>" in program.as_text()

  expected = jax.jit(masked.forward)(params, rest, cache)
  program = lowered(masked)
  output = program.compile()(params, rest, cache, rows)
  for mine, theirs in ((output.logits, expected.logits), (output.features, expected.features)):
    chosen = jnp.take_along_axis(theirs, rows[:, :, None], axis=1)
    np.testing.assert_allclose(mine, chosen, atol=TOLERANCE, rtol=0)
  for mine, theirs in zip(jax.tree.leaves(output.kv), jax.tree.leaves(expected.kv), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=TOLERANCE, rtol=0)
  assert gate_up_is_of_rows(program)
  assert not gate_up_is_of_rows(lowered(Model(config)))  # a causal model's layers stay in one scan


def test_a_stack_holds_its_layers_in_their_order():
  model = _model([WINDOWED, FULL] * 2 + [WINDOWED])
  params = model.init(jax.random.key(0))
  stacked = stack_params(params, Stacks.of_layers(model.config.layers))
  assert {name for name in stacked if name not in params} == {"stack_0", "stack_1"}
  for index in range(4):
    own = jax.tree.map(lambda x, n=index // 2: x[n], stacked[f"stack_{index % 2}"])
    jax.tree.map(np.testing.assert_array_equal, own, params[f"layer_{index}"])
  assert stacked["layer_4"] is params["layer_4"]


def test_parameters_of_a_scanned_model_are_those_of_the_unrolled_one():
  model = _model([FULL] * 2)
  stacked = Model(scanned(model.config))
  shapes = jax.tree.map(lambda x: x.shape, stacked.init(jax.random.key(1)))
  assert shapes == jax.tree.map(lambda x: x.shape, stacked.shapes())
  assert shapes["stack_0"]["mlp"]["down"]["kernel"] == (2, 24, 16)


def test_what_leaves_a_scan_early_is_refused():
  model = Model(scanned(_model([FULL] * 2).config))
  with pytest.raises(ValueError, match="a prefix of stacked layers"):
    model.prefix(1)
  with pytest.raises(ValueError, match="exits need layer_loop"):
    dataclasses.replace(_model([FULL] * 2).config, exits=(1, 2), layer_loop="scanned")
  frontier = F.causal(np.zeros((1, 2), np.int32))
  with pytest.raises(ValueError, match="cannot be left early"):
    model.segment(model.shapes(), frontier, first=0, last=1)
