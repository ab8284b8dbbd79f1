"""How the rates of one step are spread, seen from inside the parts that the step computes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtjax.anysubset.masking import Masking
from mtjax.models import Model, XLNetConfig
from mtjax.train.losses.any_subset import any_subset_loss
from mtjax.train.losses.objective import Total
from mtjax.train.step import TrainState, make_step

MODEL = Model(XLNetConfig(vocab_size=7, dim=16, heads=2, head_dim=8, mlp_dim=24, depth=1))
ROWS, OPEN = 16, 64  # four tokens a stratum
MASKING = Masking(start=(0.0, 1.0), end=(0.0, 1.0))


def one_text(rows=ROWS, size=OPEN + 1):
  """Rows of one document each, whose first entry is never asked."""
  shape = (rows, size)
  tokens = np.random.default_rng(0).integers(0, 7, shape)
  position = np.broadcast_to(np.arange(size), shape)
  return dict(tokens=tokens, segment=np.ones(shape, np.int32), position=position)


def rows_of_strata(accumulate, change=lambda loss: loss, put=lambda batch: batch) -> list[float]:
  """Of each of ROWS equal parts of the window, how many rows of a step have their rate in it."""

  def total(params, batch):
    # A rate of (k, k + 1] / ROWS asks more than 4 k, and at most 4 k + 4 tokens of OPEN.
    stratum = (jnp.sum(batch["is_target"], axis=1) - 1) * ROWS // OPEN
    found = {f"{k:02}": jnp.sum(stratum == k).astype(jnp.float32) for k in range(ROWS)}
    return Total(params["x"] * 0, jnp.asarray(len(stratum), jnp.float32), found)

  loss = change(dataclasses.replace(any_subset_loss(MODEL, MASKING), total=total))
  optimizer, params = optax.sgd(1.0), {"x": jnp.zeros(())}
  key = jax.random.key_data(jax.random.key(5))
  state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)
  step = jax.jit(make_step(loss, optimizer, accumulate=accumulate))
  _, metrics = step(state, put(one_text()))
  return [round(float(metrics[f"{k:02}"]) * ROWS, 3) for k in range(ROWS)]
