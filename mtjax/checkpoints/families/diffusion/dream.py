"""Dream (2508.15487) and DiffuCoder: a Qwen 2.5 in which all entries see each other.

It keeps the shift of a causal model: the token of an entry is predicted at the entry before it.
"""

import dataclasses
from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import Family
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.qwen import QWEN2
from mtjax.models import TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  config = QWEN2.read(raw)
  if any(layer.window is not None for layer in config.layers):
    raise ValueError("a Dream with sliding windows is not supported: its code ignores them")
  mask = raw["mask_token_id"]
  return dataclasses.replace(config, predicts="masked", mask_id=mask, alignment="shifted")


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(QWEN2.write(config), mask_token_id=config.mask_id)


def refusal(config: TransformerConfig) -> str | None:
  if config.heads * config.head_dim == config.dim:
    return None
  return f"heads of hidden_size / num_attention_heads, not {config.head_dim}, are what its code has"


DREAM = Family(
  model_type="Dream",
  architecture="DreamModel",
  defaults=dict(QWEN2.defaults, mask_token_id=151666),
  read=read,
  write=write,
  recipes=decoder_recipes,
  refusal=refusal,
)
