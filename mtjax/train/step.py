"""One update as a pure function: from state and batch to state and metrics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree, UInt32

from mtjax.display.short import short_repr
from mtjax.models import Model, Params
from mtjax.sampling.logits import seed_key
from mtjax.train.losses.objective import Batch, Objective


class TrainState(struct.PyTreeNode):
  """The state of a run, besides its data."""

  step: Int[Array, ""]  # number of updates so far
  params: Params  # those that are trained: float32 masters, whatever the activations are
  opt_state: PyTree
  seed: UInt32[Array, "2"]  # key data; the key of a step is this one with the step folded in
  ema: Params | None = None  # exponential moving average of params

  __repr__ = short_repr


def init_state(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  ema: float = 0.0,
  params: Params | None = None,
) -> TrainState:
  """Returns the state before the first update; `ema` > 0 keeps an average of the parameters too.

  The parameters are `params`, or random ones if it is None.
  """
  init_key, train_key = jax.random.split(seed_key(seed))
  if params is None:
    params = model.init(init_key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    seed=jax.random.key_data(train_key),
    ema=jax.tree.map(jnp.copy, params) if ema > 0 else None,
  )


def parameters_to_use(state: TrainState) -> Params:
  """Returns the average of the parameters if there is one, and else the parameters."""
  return state.params if state.ema is None else state.ema


def all_trained(params: Params, frozen: Params | None) -> Params:
  """Returns the model's parameters where all are trained."""
  del frozen
  return params


def make_step(
  loss: Objective,
  optimizer: optax.GradientTransformation,
  *,
  accumulate: int = 1,
  ema: float = 0.0,
  join: Callable[[Params, Params | None], Params] = all_trained,
) -> Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]:
  """Returns the function that makes an update, in `accumulate` parts of equally many rows.

  It is called with the state, a batch and, where some parameters stay as they are, those. `join`
  then makes the model's parameters of the trained and the frozen ones (`mtjax.train.trained`).

  The gradient is of the mean over the weight of the whole batch, and random choices are those of
  the whole batch (`Objective.prepare`), so the number of parts changes rounding only. Metrics:
  `loss` (nats per token), `weight` (number of tokens that count), `grad_norm` (before clipping) and
  the objective's own parts. The function is not jitted: the caller says what is donated and
  sharded. It raises ValueError, when traced, for rows that do not divide.
  """

  def sums(params, frozen, part):
    def scalar(params):
      total = loss.total(join(params, frozen), part)
      return total.sum, total

    (_, total), grads = jax.value_and_grad(scalar, has_aux=True)(params)
    return total, grads

  def whole(params, frozen, batch):
    if accumulate == 1:
      return sums(params, frozen, batch)
    rows = batch["tokens"].shape[0]
    if rows % accumulate:
      raise ValueError(f"{rows} rows do not divide into {accumulate} parts")
    parts = jax.tree.map(lambda x: _interleave(x, accumulate), dict(batch))
    start = jax.eval_shape(sums, params, frozen, jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), start)

    def add(carry, part):
      return jax.tree.map(jnp.add, carry, sums(params, frozen, part)), None

    return jax.lax.scan(add, zero, parts)[0]

  def step(state: TrainState, batch: Batch, frozen: Params | None = None):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.seed), state.step)
    total, grads = whole(state.params, frozen, loss.prepare(batch, key, state.step))
    # A batch of padding only gets a gradient of 0, not NaN.
    count = jnp.maximum(total.weight, 1e-9)
    grads = jax.tree.map(lambda g: g / count, grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.ema
    if average is not None:
      average = optax.incremental_update(params, average, 1 - ema)
    metrics = dict(loss=total.sum / count, weight=total.weight, grad_norm=optax.tree.norm(grads))
    metrics |= {name: value / count for name, value in (total.parts or {}).items()}
    return TrainState(state.step + 1, params, opt_state, state.seed, average), metrics

  return step


def _interleave(x, parts):
  # Every part takes rows from all over the batch, so a batch sharded by rows stays spread.
  return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
