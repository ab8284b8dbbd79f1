"""Fast-dLLM v2 (2509.26328): a Qwen 2.5 whose entries see their block and all earlier ones.

It keeps the shift of a causal model, also at the first entry of a block, whose token the last entry
of the block before predicts.
"""

import dataclasses
from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import Family
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.qwen import QWEN2
from mtjax.models import TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  return dataclasses.replace(
    QWEN2.read(raw),
    predicts="masked",
    mask_id=raw["mask_token_id"],
    alignment="shifted",
    block_length=raw["bd_size"],
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(QWEN2.write(config), mask_token_id=config.mask_id, bd_size=config.block_length)


FAST_DLLM = Family(
  model_type="Fast_dLLM_Qwen",
  architecture="Fast_dLLM_QwenForCausalLM",
  # The published files do not name the mask; it is a constant of their code.
  defaults=dict(QWEN2.defaults, mask_token_id=151665, bd_size=32),
  read=read,
  write=write,
  recipes=decoder_recipes,
)
