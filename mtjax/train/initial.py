"""The initial parameters of a run: random ones, or those of an existing model."""

import dataclasses

import jax

from mtjax.models import Model, Params, prefix_params
from mtjax.pretrained import model_path


def initial_params(model: Model, source: str) -> Params | None:
  """Returns float32 parameters of the first layers of a bundled model, a folder or a hub id.

  Returns None for "", which means random ones. The model may have fewer layers than the source,
  whose first layers it then takes. It may also have extra embeddings and a target conditioning that
  the source lacks, which are then random; in all else the two must agree. Raises ValueError that
  says what differs.
  """
  if not source:
    return None
  from mtjax import checkpoints
  from mtjax.checkpoints.families import differences

  loaded, params = checkpoints.load(model_path(source), dtype="float32")
  if loaded.config.kind != model.config.kind:
    raise ValueError(
      f"model.kind is {model.config.kind!r}, but init {source!r} is of the kind "
      f"{loaded.config.kind!r}"
    )
  layers = len(model.config.layers)
  if layers > len(loaded.config.layers):
    raise ValueError(
      f"model.layers is {layers}, but init {source!r} has only {len(loaded.config.layers)} layers"
    )
  new_extra = model.config.extra_embeddings and not loaded.config.extra_embeddings
  config = model.config
  if new_extra:
    config = dataclasses.replace(config, extra_embeddings=0, extra_names=())
  new_target = loaded.config.target_conditioning == "none" != config.target_conditioning
  config = dataclasses.replace(config, target_conditioning="none") if new_target else config
  if config.kind == "transformer":
    # A run may train its model to predict something else than the source does.
    config = dataclasses.replace(config, predicts=loaded.config.predicts)
  wrong = differences(config, loaded.prefix(layers).config)
  if wrong:
    raise ValueError(f"the model differs from that of init {source!r}: {'; '.join(wrong)}")
  params = prefix_params(params, layers)
  return _with(params, model.init(jax.random.key(0))) if new_extra or new_target else params


def _with(params: Params, more: Params) -> Params:
  """Returns `params`, with what it lacks taken from `more`."""
  if not isinstance(params, dict):
    return params
  return {k: _with(params[k], v) if k in params else v for k, v in more.items()}
