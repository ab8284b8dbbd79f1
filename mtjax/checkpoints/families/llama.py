"""Llama 2 and 3.x, SmolLM 1 and 2, and all other models whose type is llama."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import (
  Family,
  heads_must_divide,
  read_common,
  write_common,
)
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.rope import only_rope, read_rope, write_rope
from mtjax.models import TransformerConfig, uniform_layers


def read(raw: Fields) -> TransformerConfig:
  return TransformerConfig(
    **read_common(raw),
    layers=uniform_layers(raw["num_hidden_layers"], rope=read_rope(raw)),
    qkv_bias=raw["attention_bias"],
    out_bias=raw["attention_bias"],
    mlp_bias=raw["mlp_bias"],
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(
    **write_common(config),
    **write_rope(only_rope(config)),
    attention_bias=config.qkv_bias,
    mlp_bias=config.mlp_bias,
  )


LLAMA = Family(
  model_type="llama",
  architecture="LlamaForCausalLM",
  defaults=dict(
    rms_norm_eps=1e-6,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
    attention_bias=False,
    mlp_bias=False,
  ),
  read=read,
  write=write,
  recipes=decoder_recipes,
  refusal=heads_must_divide,
)
