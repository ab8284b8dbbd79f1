"""Mistral: Llama with one sliding window for all layers, for some (layer_types), or for none."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import (
  FULL,
  SLIDING,
  Family,
  layer_types,
  make_layers,
  only_window,
  read_common,
  write_common,
)
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.rope import only_rope, read_rope, write_rope
from mtjax.models import TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  window, rope = raw["sliding_window"], read_rope(raw)
  types = layer_types(raw, window, lambda _: FULL if window is None else SLIDING)
  return TransformerConfig(
    **read_common(raw), layers=make_layers(types, window, {FULL: rope, SLIDING: rope})
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  # layer_types is not written, because many readers of a mistral ignore it: another family
  # expresses a mixture of layers.
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
