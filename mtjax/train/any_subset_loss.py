"""The loss of an any-subset model: the joint law of all asked tokens, in one pass."""

import jax
import jax.numpy as jnp

from mtjax.anysubset import masking as masking_lib
from mtjax.anysubset.canvas import Canvas, sink_token
from mtjax.anysubset.masking import Masking
from mtjax.anysubset.orders import lattice
from mtjax.anysubset.single_stream import asking
from mtjax.models import Model, Params
from mtjax.train.objectives import Total, next_token
from mtjax.train.step import Loss


def any_subset_loss(model: Model, masking: Masking) -> Loss:
  """-log p(asked | given) under the lattice's order, nats an asked token (2504.20456, sec. 4).

  In one pass, of two streams or, for a model with `target_conditioning`, of one. On rows of packed
  documents, each blind to the others. The first entry of a document, or of what a row holds of one,
  becomes the model's sink: always given. Reports `rate`, the share of tokens asked. Raises
  ValueError for a model without a query embedding and a sink.
  """
  sink = sink_token(model.config)
  if sink is None:
    raise ValueError(
      f"an any-subset model has a query and a sink embedding: model.extra_embeddings must be at "
      f"least 2, got {model.config.extra_embeddings}"
    )

  def loss(params: Params, batch, key, step) -> Total:
    document, position = batch["segment"], batch["position"]
    token = jnp.where(position == 0, sink, batch["tokens"])
    valid = document > 0
    draw_key, choice_key = jax.random.split(key)
    asked = masking.draw(draw_key, valid & (position > 0), step)
    canvas = Canvas(token, position, valid & ~asked, asked)
    size = token.shape[1]
    queries = min(masking.queries or size, size)
    query, each = masking_lib.choose(choice_key, asked, queries)
    frontier, rows = asking(model.config, canvas, lattice(canvas), query, document)
    logits = model.forward(params, frontier, rows=rows).logits
    targets = jnp.take_along_axis(token, jnp.maximum(query, 0), axis=1)
    # The sink is no token of the vocabulary; where it is read, the weight is 0.
    targets = jnp.where(query >= 0, targets, 0)
    total = next_token(logits, targets, (query >= 0) * each[:, None])
    rate = total.weight * jnp.sum(asked) / jnp.maximum(jnp.sum(valid), 1)
    return Total(total.sum, total.weight, {"rate": rate})

  return loss
