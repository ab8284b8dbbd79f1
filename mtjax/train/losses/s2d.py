"""The loss of a model that may be left early: every exit predicts, in one pass."""

from mtjax import frontier as frontier_lib
from mtjax.models import Model, Params
from mtjax.train.losses.objective import Batch, Loss, NoSettings, Total, next_token


def s2d_loss(model: Model, settings: NoSettings = NoSettings()) -> Loss:
  """Returns nats per next token, the mean over the exits of `model`, on rows of packed documents.

  Sorted fine-tuning (2309.08968; of a draft model, 2407.01955): the sub-models are the first
  `config.exits[i]` layers under the one final norm and head, all of them in every step with equal
  weights. There is one forward pass: each exit continues from the hidden states of the one before.
  The loss reports `loss/exit_<layers>`, the nats per token of each. Raises ValueError for a model
  without exits.
  """
  del settings
  exits = model.config.exits
  if not exits:
    raise ValueError("the S2D loss needs model.exits, as (2, 4, 6), but the model has none")

  def total(params: Params, batch: Batch) -> Total:
    frontier = frontier_lib.packed(batch["tokens"], batch["segment"])
    totals, hidden = {}, None
    for first, last in zip((0, *exits), exits, strict=False):
      output, hidden = model.segment(params, frontier, first=first, last=last, hidden=hidden)
      totals[last] = next_token(output.logits, batch["targets"], batch["weight"])
    parts = {f"loss/exit_{layers}": total.sum for layers, total in totals.items()}
    return Total(sum(parts.values()) / len(exits), totals[exits[-1]].weight, parts)

  return Loss(total)
