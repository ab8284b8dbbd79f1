"""The loss of a causal model: cross-entropy of every next token, of its last layer alone."""

from mtjax import frontier as frontier_lib
from mtjax.models import Model, Params
from mtjax.train.losses.objective import Batch, Loss, NoSettings, Total, next_token


def next_token_loss(model: Model, settings: NoSettings = NoSettings()) -> Loss:
  """Returns nats per next token, on rows of packed documents, each blind to the others."""
  del settings

  def total(params: Params, batch: Batch) -> Total:
    frontier = frontier_lib.packed(batch["tokens"], batch["segment"])
    logits = model.forward(params, frontier).logits
    return next_token(logits, batch["targets"], batch["weight"])

  return Loss(total)
