"""The loss of Eso-LM (B): some tokens by masked diffusion, the rest one by one."""

import dataclasses

import jax
import jax.numpy as jnp

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import (
  Canvas,
  banned_token,
  context_rank,
  has_query,
  query_token,
  sink_token,
  two_stream,
)
from mtjax.anysubset.network import without_mask
from mtjax.anysubset.orders import ranks_of_times
from mtjax.diffusion.noising.times import spread_times
from mtjax.models import Model, Params, TransformerConfig
from mtjax.train.losses.masked_diffusion import check_min_time
from mtjax.train.losses.objective import Batch, Loss, Total, next_token
from mtjax.types import Frontier


@dataclasses.dataclass(frozen=True)
class EsoDiffusion:
  """Settings of Eso-LM: the `share` of tokens that come by diffusion (alpha_0 of the paper).

  0 is an autoregressive model with masks, and 1 is masked diffusion. Times are at least `min_time`.
  """

  share: float = 0.5
  min_time: float = 1e-3

  def __post_init__(self):
    if not 0 <= self.share <= 1:
      raise ValueError(f"share must be within 0 to 1, got {self.share}")
    check_min_time(self.min_time)


def eso_loss(model: Model, settings: EsoDiffusion) -> Loss:
  """Returns nats per token of a bound of -log p(text), the sum of two parts.

  (Eso-LM 2506.01928, sec. 3 and 4.2.) A token is clean at time t with probability
  alpha_t = share (1 - t). Both parts have an order in which clean tokens come first, at random.

  - Sequential: with the tokens that are clean at time 0 given, the others are predicted from left
    to right, each at a mask that sees the tokens before it in the order, and itself.
  - Diffusion: at a random time, masks follow the clean tokens, at random, and each sees what is
    before it, masks too. Its cross-entropy has the weight -alpha'_t / (1 - alpha_t), which is
    share / (1 - alpha_t).

  One pass takes three entries per token: contents and masks of the first part, and one entry of the
  second. The authors compute one part for half of a batch each, which costs the same per sample of
  a part. Every document has its own times and orders; times are spread over all documents of a
  batch. The sum is divided by the number of tokens. It is a bound of the model that samples with
  new orders in each step; with `min_time` above 0 a part of that size is left out.

  The first entry of a document becomes the model's sink, if it has one, which is always context; a
  mask of the vocabulary that stands in a text is context, too. The loss reports
  `loss/sequential`, `loss/diffusion`, and `masked`, the share of tokens that are masked in the
  second part. Raises ValueError for a model without a query, and for one whose entries see each
  other in another way.
  """
  config = model.config
  if not has_query(config):
    raise ValueError(
      "eso needs masks, which are the model's queries: model.extra_embeddings must be at least 1, "
      f"got {config.extra_embeddings}, and model.extra_names must have 'query', got "
      f"{config.extra_names}"
    )
  if not isinstance(config, TransformerConfig) or config.any_subset_rows != "eso":
    raise ValueError("eso needs a model with any_subset_rows 'eso'")
  sink, share, network = sink_token(config), settings.share, without_mask(model)
  banned = banned_token(config)

  def prepare(batch: Batch, key, step) -> Batch:
    del step
    order_key, time_key, noise_key = jax.random.split(key, 3)
    position, valid = batch["position"], batch["segment"] > 0
    is_target = valid if sink is None else valid & (position > 0)
    if banned is not None:
      is_target = is_target & (batch["tokens"] != banned)
    lot = jax.random.uniform(order_key, position.shape)
    index = jnp.arange(position.shape[1])
    # As in `mtjax.anysubset.orders.eso_ranks`: early lots choose and order clean tokens.
    rank = ranks_of_times(-jnp.where(lot < share, lot, 1.0 + index), is_target)
    t = spread_times(time_key, valid & (position == 0), low=settings.min_time)
    noise, alpha = jax.random.uniform(noise_key, position.shape), share * (1 - t)
    return {
      **batch,
      "is_target": is_target,
      "rank": rank,
      "late": is_target & (lot >= share),
      "noisy_rank": ranks_of_times(-noise, is_target),
      "masked": is_target & (noise >= alpha),
      "each": share / (1 - alpha),
    }

  def total(params: Params, batch: Batch) -> Total:
    document, position, is_target = batch["segment"], batch["position"], batch["is_target"]
    token = batch["tokens"]
    entries = token if sink is None else jnp.where(position == 0, sink, token)
    canvas = Canvas(entries, position, (document > 0) & ~is_target, is_target)
    index = jnp.broadcast_to(jnp.arange(token.shape[1]), token.shape)
    size, frontiers, rows, weights = token.shape[1], [], [], {}
    if share < 1:
      query = jnp.where(is_target, index, -1)
      frontiers.append(two_stream(config, canvas, batch["rank"], query, document))
      rows.append(index + size)
      weights["loss/sequential"] = batch["late"].astype(jnp.float32)
    if share > 0:
      rows.append(index + sum(part.token.shape[1] for part in frontiers))
      # Other numbers of documents than the first part has keep the two apart.
      frontiers.append(_noisy(config, canvas, batch, document + size + 1))
      weights["loss/diffusion"] = jnp.where(batch["masked"], batch["each"], 0.0)
    frontier = frontier_lib.concatenate(*frontiers)
    logits = network.forward(params, frontier, rows=jnp.concatenate(rows, axis=1)).logits
    halves = jnp.split(logits, len(rows), axis=1)
    target = jnp.where(is_target, token, 0)
    sums = {
      name: next_token(each, target, weight).sum
      for each, (name, weight) in zip(halves, weights.items(), strict=True)
    }
    nats = jnp.sum(jnp.stack(list(sums.values())))
    count = jnp.sum(is_target).astype(jnp.float32)
    masked = jnp.sum(batch["masked"]).astype(jnp.float32)
    return Total(nats, count, {**sums, "masked": masked})

  return Loss(total, prepare)


def _noisy(config, canvas: Canvas, batch: Batch, document) -> Frontier:
  """Returns a text at a time: entries in the order of their ranks, each of which sees those before.

  Masks have the last ranks.
  """
  token = jnp.where(batch["masked"], query_token(config), canvas.token)
  number = jnp.cumsum(canvas.is_context, axis=1) - 1
  of_context = context_rank(config, number, number[:, -1:] + 1)
  rank = jnp.where(canvas.is_context, of_context, batch["noisy_rank"])
  valid = canvas.is_context | canvas.is_target
  entries = frontier_lib.content(token, canvas.position, rank, valid=valid)
  apart = frontier_lib.block_local(token, document).replace(position=canvas.position)
  return frontier_lib.both(entries, apart)
