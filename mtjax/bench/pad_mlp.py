"""A larger model with the same distribution: MLPs padded with zeros."""

import dataclasses

import jax.numpy as jnp

from mtjax.models import Model, Params


def pad_mlp(model: Model, params: Params, mlp_dim: int) -> tuple[Model, Params]:
  """Returns a model with MLPs of width `mlp_dim`; new units are zeros, so all logits are the same.

  It is for timing only: acceptance is that of the trained model, the cost that of a larger one.
  Raises ValueError for a width below the model's, biases in its MLPs, and MLPs that are not gated.
  """
  config = model.config
  if config.mlp != "gated" or config.mlp_bias:
    raise ValueError("only gated MLPs without biases can be padded")
  if mlp_dim < config.mlp_dim:
    raise ValueError(f"mlp_dim must be at least the model's {config.mlp_dim}, got {mlp_dim}")
  more = mlp_dim - config.mlp_dim
  wider = dict(params)
  for number in range(len(config.layers)):
    layer = params[f"layer_{number}"]
    gate, up = jnp.split(layer["mlp"]["gate_up"]["kernel"], 2, axis=1)
    both = jnp.concatenate([jnp.pad(x, ((0, 0), (0, more))) for x in (gate, up)], axis=1)
    down = jnp.pad(layer["mlp"]["down"]["kernel"], ((0, more), (0, 0)))
    wider[f"layer_{number}"] = dict(
      layer, mlp=dict(gate_up=dict(kernel=both), down=dict(kernel=down))
    )
  return Model(dataclasses.replace(config, mlp_dim=mlp_dim)), wider
