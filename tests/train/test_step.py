"""The update as a function: which tokens count, how parts add up, the losses of a known run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.train.losses.next_token import next_token_loss
from mtjax.train.losses.objective import next_token
from mtjax.train.optimizers import OptimizerConfig, Schedule, make_optimizer
from mtjax.train.step import init_state, make_step

MODEL = Model(
  TransformerConfig(
    vocab_size=32, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=24, layers=uniform_layers(1)
  )
)
SCHEDULE = Schedule(steps=10, warmup=2, decay=4)


def batch(rows=4, length=8, seed=0):
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, 32, (rows, length + 1)).astype(np.int32)
  weight = (rng.random((rows, length)) < 0.6).astype(np.float32)
  weight[0] = 0  # parts differ in what they count: a mean of means would show
  segment = np.cumsum(rng.random((rows, length)) < 0.3, axis=1).astype(np.int32) + 1
  return dict(tokens=tokens[:, :-1], targets=tokens[:, 1:], segment=segment, weight=weight)


def update(name="adamw", *, accumulate=1, ema=0.0, batch_=None, model=MODEL):
  optimizer = make_optimizer(OptimizerConfig(name=name), SCHEDULE)
  state = init_state(model, optimizer, seed=0, ema=ema)
  step = make_step(next_token_loss(model), optimizer, accumulate=accumulate, ema=ema)
  return state, *jax.jit(step)(state, batch() if batch_ is None else batch_)


def test_next_token_is_the_cross_entropy_of_entries_that_count():
  logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [1 / 3] * 3]]))
  total = next_token(logits, jnp.array([[0, 2, 1]]), jnp.array([[1.0, 2.0, 0.0]]))
  np.testing.assert_allclose(total.sum, -(np.log(0.5) + 2 * np.log(0.7)), rtol=1e-6)
  assert total.weight == 3


def test_next_token_is_float32_whatever_the_logits_are():
  logits = jnp.zeros((1, 2, 300), jnp.bfloat16)
  total = next_token(logits, jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2)))
  assert total.sum.dtype == jnp.float32
  np.testing.assert_allclose(total.sum, 2 * np.log(300), rtol=1e-6)


def test_an_entry_that_counts_nothing_may_be_infinite():
  logits = jnp.array([[[0.0, -jnp.inf]]])
  total = next_token(logits, jnp.array([[1]]), jnp.zeros((1, 1)))
  assert total.sum == 0


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(accumulate):
  _, one, metrics = update()
  _, parts, metrics_of_parts = update(accumulate=accumulate)
  for a, b in zip(jax.tree.leaves(one.opt_state), jax.tree.leaves(parts.opt_state), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  for name in metrics:
    np.testing.assert_allclose(metrics[name], metrics_of_parts[name], rtol=1e-5)


def test_rows_that_do_not_divide_into_parts_are_refused():
  with pytest.raises(ValueError, match="4 rows do not divide into 3 parts"):
    update(accumulate=3)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_batch_of_padding_changes_nothing_but_weight_decay(name):
  empty = batch()
  empty["weight"][:] = 0
  before, after, metrics = update(name, batch_=empty)
  assert metrics["loss"] == 0 and metrics["weight"] == 0
  for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_masters_stay_float32_under_bfloat16_activations(name):
  model = Model(dataclasses.replace(MODEL.config, dtype="bfloat16"))
  _, after, metrics = update(name, model=model)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(after.params)} == {"float32"}
  _, _, exact = update(name)
  np.testing.assert_allclose(metrics["loss"], exact["loss"], rtol=1e-2)
  assert metrics["loss"] != exact["loss"], "activations were not bfloat16"


def test_the_average_follows_the_parameters():
  before, after, _ = update(ema=0.9)
  for old, new, mean in zip(
    *(jax.tree.leaves(x) for x in (before.params, after.params, after.ema)), strict=True
  ):
    np.testing.assert_allclose(mean, 0.9 * old + 0.1 * new, atol=1e-6)


def test_warm_up_stable_decay():
  factors = [float(SCHEDULE.factor(step)) for step in range(11)]
  np.testing.assert_allclose(factors, [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0], atol=1e-6)


def test_a_longer_run_has_the_same_stable_phase():
  longer = Schedule(steps=50, warmup=2, decay=4)
  assert all(longer.factor(s) == SCHEDULE.factor(s) for s in range(SCHEDULE.stable_end))


def test_a_schedule_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="warmup 6 and decay 5 do not fit in 10 steps"):
    Schedule(steps=10, warmup=6, decay=5)


def test_muon_moves_every_direction_of_a_matrix_alike():
  before, after, _ = update("muon")
  moved = after.params["layer_0"]["mlp"]["down"]["kernel"]
  moved = np.asarray(moved - before.params["layer_0"]["mlp"]["down"]["kernel"])
  sizes = np.linalg.svd(moved, compute_uv=False)
  assert sizes[len(sizes) // 2] > 0.4 * sizes[0], f"not orthogonalised: {sizes}"


@pytest.mark.parametrize(
  ("name", "loss", "after"), [("adamw", 3.4876573, 3.4415162), ("muon", 3.4876573, 3.4384580)]
)
def test_one_step_of_a_known_run(name, loss, after):
  state, new, metrics = update(name)
  _, again, _ = None, *jax.jit(_second(name))(new)
  losses = (float(metrics["loss"]), float(again))
  assert np.allclose(losses, (loss, after), rtol=2e-5), (
    f"{name}: losses of the first two steps are {losses}, they were {(loss, after)}. Something "
    "that every run depends on has changed: initialisation, the forward pass, packing, the loss, "
    "the optimizer or its schedule. If that was meant, say so in the commit and put the new "
    "numbers here; older runs cannot be continued bit by bit"
  )


def _second(name):
  loss = next_token_loss(MODEL)

  def second(state):
    total = loss(state.params, batch(), jax.random.key(0), state.step)
    return total.sum / total.weight, 0

  return second
