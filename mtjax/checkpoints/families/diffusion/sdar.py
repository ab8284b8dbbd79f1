"""SDAR (2510.06303): a Qwen 3 whose entries see their block and all earlier ones."""

import dataclasses
import warnings
from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import Family
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.qwen import QWEN3
from mtjax.models import TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  return dataclasses.replace(
    QWEN3.read(raw),
    predicts="masked",
    mask_id=raw["mask_token_id"],
    block_length=_block_length(raw),
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(QWEN3.write(config), mask_token_id=config.mask_id, block_size=config.block_length)


def _block_length(raw: Fields) -> int:
  if "block_size" in raw:
    return raw["block_size"]
  warnings.warn(
    "config.json has no block_size: blocks of 4 are used, as in most models of the family; add the "
    "field if this model was trained with others",
    stacklevel=2,
  )
  return 4


SDAR = Family(
  model_type="sdar",
  architecture="SDARForCausalLM",
  # Some published files do not name the mask; it is a constant of their code.
  defaults=dict(QWEN3.defaults, mask_token_id=151669),
  read=read,
  write=write,
  recipes=decoder_recipes,
)
