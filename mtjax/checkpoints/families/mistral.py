"""Mistral: Llama with one sliding window for all layers, or none."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import (
  Family,
  Raw,
  only_window,
  read_common,
  required,
  write_common,
)
from mtjax.checkpoints.families.rope import only_rope, read_rope, write_rope
from mtjax.models import TransformerConfig, uniform_layers


def read(raw: Raw) -> TransformerConfig:
  count = required(raw, "num_hidden_layers")
  return TransformerConfig(
    **read_common(raw),
    layers=uniform_layers(count, window=raw["sliding_window"], rope=read_rope(raw)),
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  return dict(
    **write_common(config),
    **write_rope(only_rope(config)),
    sliding_window=only_window(config),
  )


MISTRAL = Family(
  model_type="mistral",
  architecture="MistralForCausalLM",
  defaults=dict(
    num_key_value_heads=8,
    rms_norm_eps=1e-6,
    max_position_embeddings=131072,
    sliding_window=4096,
    tie_word_embeddings=False,
  ),
  read=read,
  write=write,
  recipes=decoder_recipes,
)
