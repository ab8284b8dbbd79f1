"""What a run begins with: random parameters, or those of a model that there is."""

import dataclasses

import jax

from mtjax.models import Model, Params, prefix_params
from mtjax.pretrained import model_path


def initial_params(model: Model, source: str) -> Params | None:
  """float32 parameters of the first layers of a bundled model, a folder or a hub id.

  None for "": random ones. The model may have fewer layers than the source, whose first ones it
  then takes, and extra embeddings and a target conditioning that the source has not, which begin at
  random; in all else the two must agree. Raises ValueError with what differs.
  """
  if not source:
    return None
  from mtjax import checkpoints
  from mtjax.checkpoints.families import differences

  found, params = checkpoints.load(model_path(source), dtype="float32")
  if found.config.kind != model.config.kind:
    raise ValueError(
      f"model.kind is {model.config.kind!r}, and init {source!r} is of the kind "
      f"{found.config.kind!r}"
    )
  layers = len(model.config.layers)
  if layers > len(found.config.layers):
    raise ValueError(
      f"model.layers is {layers}, and init {source!r} has {len(found.config.layers)} layers"
    )
  new_extra = model.config.extra_embeddings and not found.config.extra_embeddings
  config = model.config
  if new_extra:
    config = dataclasses.replace(config, extra_embeddings=0, extra_names=())
  new_target = found.config.target_conditioning == "none" != config.target_conditioning
  config = dataclasses.replace(config, target_conditioning="none") if new_target else config
  if config.kind == "transformer":
    # What a run trains its model to predict is the run's to say.
    config = dataclasses.replace(config, predicts=found.config.predicts)
  wrong = differences(config, found.prefix(layers).config)
  if wrong:
    raise ValueError(f"the model is not that of init {source!r}: {'; '.join(wrong)}")
  params = prefix_params(params, layers)
  return _with(params, model.init(jax.random.key(0))) if new_extra or new_target else params


def _with(params: Params, more: Params) -> Params:
  """What `params` lacks, from `more`."""
  if not isinstance(params, dict):
    return params
  return {k: _with(params[k], v) if k in params else v for k, v in more.items()}
