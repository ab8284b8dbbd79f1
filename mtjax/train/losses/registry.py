"""The loss that a run's settings name."""

from mtjax.train.config import RunConfig
from mtjax.train.losses.any_subset import any_subset_loss
from mtjax.train.losses.objective import next_token
from mtjax.train.losses.s2d import s2d_loss
from mtjax.train.step import Loss, packed_loss


def loss_of(settings: RunConfig) -> Loss:
  """Returns the any-subset loss, the S2D loss if the model has exits, or else the next-token loss.

  Raises ValueError for a model that the objective cannot train.
  """
  if settings.objective == "any_subset":
    return any_subset_loss(settings.model, settings.masking)
  build = s2d_loss if settings.model.config.exits else packed_loss
  return build(settings.model, next_token)
