"""The initial parameters of a run: random ones, or those of an existing model."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.models import Model, Params, prefix_params
from mtjax.models.stacking import Stacks, stack_params, unrolled
from mtjax.pretrained import model_path


def initial_params(model: Model, source: str) -> Params | None:
  """Returns float32 parameters of the first layers of a bundled model, a folder or a hub id.

  Returns None for "", which means random ones. The model may have fewer layers than the source,
  whose first layers it then takes. It may also have extra embeddings and a target conditioning that
  the source lacks, which are then random, but for a mask: it begins as the source's query, which
  stands at unknown tokens too, or else as the mean of its tokens. In all else the two must agree.
  Raises ValueError that says what differs.
  """
  if not source:
    return None
  params = _unrolled(Model(unrolled(model.config)), source)
  return stack_params(params, Stacks.of(model.config))


def _unrolled(model: Model, source: str) -> Params:
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
  config, there = model.config, loaded.config
  extras = (config.extra_embeddings, config.extra_names)
  new_extra = config.extra_embeddings and extras != (there.extra_embeddings, there.extra_names)
  if new_extra:
    config = dataclasses.replace(
      config, extra_embeddings=there.extra_embeddings, extra_names=there.extra_names
    )
  new_target = there.target_conditioning == "none" != config.target_conditioning
  config = dataclasses.replace(config, target_conditioning="none") if new_target else config
  if config.kind == "transformer":
    # A run may train its model to predict something else than the source does.
    unlike = ("predicts", "mask_id", "alignment", "block_length", "any_subset_rows", "noise")
    config = dataclasses.replace(config, **{name: getattr(there, name) for name in unlike})
  wrong = differences(config, loaded.prefix(layers).config)
  if wrong:
    raise ValueError(f"the model differs from that of init {source!r}: {'; '.join(wrong)}")
  params = prefix_params(params, layers)
  if not new_extra and not new_target:
    return params
  more = model.init(jax.random.key(0))
  if new_extra:
    table = _extra(model.config.extra_names, more["extra"]["table"], there.extra_names, params)
    params = {**params, "extra": {"table": table}}
  return _with(params, more)


def _extra(
  names: Sequence[str], table: Float[Array, "E D"], known: Sequence[str], params: Params
) -> Float[Array, "E D"]:
  """Returns the table with the rows that the source, whose extra embeddings are `known`, has."""
  rows = dict(zip(known, params["extra"]["table"], strict=False)) if known else {}
  unknown = rows["query"] if "query" in rows else jnp.mean(params["embedding"]["table"], axis=0)
  rows = {"mask": unknown, **rows}
  for index, name in enumerate(names):
    table = table.at[index].set(rows[name]) if name in rows else table
  return table


def _with(params: Params, more: Params) -> Params:
  """Returns `params`, with what it lacks taken from `more`."""
  if not isinstance(params, dict):
    return params
  return {k: _with(params[k], v) if k in params else v for k, v in more.items()}
