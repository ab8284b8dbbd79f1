"""A small model out of a large one: some layers, neurons, and rows of the embedding."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from mtjax.models.config import TransformerConfig
from mtjax.models.model import Model, Params


def trim(
  model: Model, params: Params, *, layers: Sequence[int], ids: Sequence[int], mlp_dim: int
) -> tuple[Model, Params]:
  """Returns the model of these layers, in this order, and of the tokens `ids`, to train further.

  Its logits are those of `ids` and of one more token, which stands for all others: its row is the
  mean of theirs. Of each MLP it keeps the `mlp_dim` neurons with the largest product of norms of
  their weights. Pruned models learn from few tokens (2310.06694). Raises ValueError for a model
  that is no transformer with tied embeddings, gated MLPs and unstacked layers, for layers, ids or
  neurons that it lacks, and for no layer.
  """
  config = model.config
  if not isinstance(config, TransformerConfig) or config.extra_embeddings or "head" in params:
    raise ValueError("only transformers with tied and without extra embeddings can be trimmed")
  known = [f"layer_{index}" for index in layers]
  if not known or not set(known) <= params.keys():
    raise ValueError(f"layers must be some of 0 to {len(config.layers) - 1}, got {list(layers)}")
  if not 1 <= mlp_dim <= config.mlp_dim:
    raise ValueError(f"mlp_dim must be from 1 to {config.mlp_dim}, got {mlp_dim}")
  table = params["embedding"]["table"]
  if len({*ids}) < len(ids) or not all(0 <= i < len(table) for i in ids):
    raise ValueError(f"ids must be different ones from 0 to {len(table) - 1}")
  kept = jnp.asarray(ids)
  others = jnp.delete(table, kept, axis=0).astype(jnp.float32)
  rest = others.mean(axis=0) if len(others) else jnp.zeros(table.shape[1])
  rows = jnp.concatenate([table[kept], rest[None].astype(table.dtype)])
  small = dataclasses.replace(
    config,
    vocab_size=len(ids) + 1,
    layers=tuple(config.layers[i] for i in layers),
    exits=(),
    mlp_dim=mlp_dim,
  )
  out = {"embedding": {"table": rows}, "final_norm": params["final_norm"]}
  return Model(small), out | {
    f"layer_{n}": _narrowed(params[name], mlp_dim) for n, name in enumerate(known)
  }


def _narrowed(layer: Params, neurons: int) -> Params:
  gate_up, down = layer["mlp"]["gate_up"]["kernel"], layer["mlp"]["down"]["kernel"]
  gate, up = jnp.split(gate_up, 2, axis=1)
  norms = [jnp.linalg.norm(x, axis=axis) for x, axis in ((gate, 0), (up, 0), (down, 1))]
  kept = jnp.sort(jnp.argsort(-norms[0] * norms[1] * norms[2])[:neurons])
  mlp = {
    "gate_up": {"kernel": jnp.concatenate([gate[:, kept], up[:, kept]], axis=1)},
    "down": {"kernel": down[kept]},
  }
  return layer | {"mlp": mlp}
