"""The loss of Set Diffusion: all conditionals of a text in an order that mixes neighbours."""

import dataclasses

import jax
import jax.numpy as jnp

from mtjax.anysubset.canvas import Canvas, is_set_diffusion, sink_token, two_stream
from mtjax.anysubset.orders import ranks_of_times, staggered_times
from mtjax.models import Model, Params
from mtjax.train.losses.objective import Batch, Loss, Total, next_token


@dataclasses.dataclass(frozen=True)
class SetDiffusion:
  """Settings of Set Diffusion: `set_size`, the size of sets that the orders are made for.

  1 is the order from left to right, and so an autoregressive model with masks.
  """

  set_size: int = 8

  def __post_init__(self):
    if self.set_size < 1:
      raise ValueError(f"set_size must be at least 1, got {self.set_size}")


def set_diffusion_loss(model: Model, settings: SetDiffusion) -> Loss:
  """Returns the mean of -log p(x_r | x of lower rank) over all tokens, in nats (2607.01775).

  One pass has L clean entries, each of which sees those of its rank and lower ones, and L masks,
  each of which sees clean entries of lower rank and itself. Every document has an order of its own
  (`mtjax.anysubset.orders.staggered_order`). The first entry of a document, or of the part of one
  that a row holds, becomes the model's sink, which is always context. Raises ValueError for a model
  without query and sink, and for one whose entries see each other in another way.
  """
  config = model.config
  sink = sink_token(config)
  if "query" not in config.extra_names or sink is None:
    raise ValueError(
      "set diffusion needs a query and a sink embedding: model.extra_embeddings must be at least "
      f"2, got {config.extra_embeddings}, and model.extra_names must have 'query' and 'sink', got "
      f"{config.extra_names}"
    )
  if not is_set_diffusion(config):
    raise ValueError("set diffusion needs a model with any_subset_rows 'set_diffusion'")

  def prepare(batch: Batch, key, step) -> Batch:
    del step
    document, position = batch["segment"], batch["position"]
    is_target = (document > 0) & (position > 0)
    same = (document[:, :, None] == document[:, None]) & is_target[:, None]
    count = jnp.maximum(jnp.sum(same, axis=2), 1)
    first = jnp.min(jnp.where(same, position[:, None], position.shape[1]), axis=2)
    number, lot = position - first, jax.random.exponential(key, position.shape)
    time = position.astype(jnp.float32) * -1.0
    if settings.set_size > 1:
      time = staggered_times(lot, number, count, settings.set_size)
    return {**batch, "rank": ranks_of_times(time, is_target)}

  def total(params: Params, batch: Batch) -> Total:
    document, position, token = batch["segment"], batch["position"], batch["tokens"]
    valid, is_target = document > 0, batch["rank"] > 0
    index = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
    entries = jnp.where(position == 0, sink, token)
    canvas = Canvas(entries, position, valid & ~is_target, is_target)
    query = jnp.where(is_target, index, -1)
    frontier = two_stream(config, canvas, batch["rank"], query, document)
    logits = model.forward(params, frontier, rows=index + token.shape[1]).logits
    return next_token(logits, jnp.where(is_target, token, 0), is_target.astype(jnp.float32))

  return Loss(total, prepare)
