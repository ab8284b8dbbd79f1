"""The loss of an any-subset model: the joint law of all asked tokens, in one pass."""

import jax
import jax.numpy as jnp

from mtjax.anysubset import masking as masking_lib
from mtjax.anysubset.canvas import Canvas, sink_token
from mtjax.anysubset.masking import Masking
from mtjax.anysubset.orders import lattice
from mtjax.anysubset.single_stream import asking
from mtjax.models import Model, Params, XLNetConfig
from mtjax.train.losses.objective import Total, next_token
from mtjax.train.step import Batch, Loss


def any_subset_loss(model: Model, masking: Masking) -> Loss:
  """-log p(asked | given) under the lattice's order, nats an asked token (2504.20456, sec. 4).

  In one pass, of two streams or, for a model with `target_conditioning`, of one. On rows of packed
  documents, each blind to the others. The first entry of a document, or of what a row holds of one,
  becomes the model's sink: always given. An XLNet has no sink: the entry is left out, so that a
  document is what a canvas of its text is, and any of its tokens may be asked.

  What is asked is chosen for all rows of a batch at once, rates stratified over all of them,
  whatever parts and devices they go to (`Masking.rates`). Reports `rate`, the share of entries that
  are asked. Raises ValueError for a transformer without a query embedding and a sink.
  """
  sink = sink_token(model.config)
  names = model.config.extra_names
  if "query" not in names or (sink is None and not isinstance(model.config, XLNetConfig)):
    raise ValueError(
      "an any-subset model has a query and a sink embedding: model.extra_embeddings must be at "
      f"least 2, got {model.config.extra_embeddings}, and model.extra_names must have 'query' and "
      f"'sink', got {names}"
    )

  def prepare(batch: Batch, key, step) -> Batch:
    draw_key, choice_key = jax.random.split(key)
    valid = batch["segment"] > 0
    is_target = masking.draw(draw_key, valid & (batch["position"] > 0), step)
    rows, size = is_target.shape
    query, each = masking_lib.choose(choice_key, is_target, min(masking.queries or size, size))
    # Of the whole batch: what parts of it have as their shares does not add up to this.
    rate = jnp.full(rows, jnp.sum(is_target) / jnp.maximum(jnp.sum(valid), 1))
    return {**batch, "is_target": is_target, "query": query, "each": each, "rate": rate}

  def total(params: Params, batch: Batch) -> Total:
    document, position = batch["segment"], batch["position"]
    is_target, query = batch["is_target"], batch["query"]
    token, valid = batch["tokens"], document > 0
    if sink is None:
      is_context = valid & ~is_target & (position > 0)
    else:
      token, is_context = jnp.where(position == 0, sink, token), valid & ~is_target
    canvas = Canvas(token, position, is_context, is_target)
    frontier, rows = asking(model.config, canvas, lattice(canvas), query, document)
    logits = model.forward(params, frontier, rows=rows).logits
    targets = jnp.take_along_axis(token, jnp.maximum(query, 0), axis=1)
    # The sink is no token of the vocabulary; where it is read, the weight is 0.
    targets = jnp.where(query >= 0, targets, 0)
    total = next_token(logits, targets, (query >= 0) * batch["each"][:, None])
    return Total(total.sum, total.weight, {"rate": total.weight * batch["rate"][0]})

  return Loss(total, prepare)
