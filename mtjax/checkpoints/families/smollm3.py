"""SmolLM3: Llama with some layers without rotary positions (NoPE)."""

import dataclasses
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
  written_types,
)
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.rope import only_rope, read_rope, write_rope
from mtjax.models import TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  count, every = raw["num_hidden_layers"], raw["no_rope_layer_interval"]
  rotary = raw.get("no_rope_layers") or [(index + 1) % every != 0 for index in range(count)]
  if len(rotary) < count:
    raise ValueError(f"there are {len(rotary)} no_rope_layers for {count} layers")
  window = raw["sliding_window"] if raw["use_sliding_window"] else None

  def default(index):
    return SLIDING if window is not None and not rotary[index] else FULL

  types = layer_types(raw, window, default)
  rope = read_rope(raw)
  layers = make_layers(types, window, {FULL: rope, SLIDING: rope})
  return TransformerConfig(
    **read_common(raw),
    layers=tuple(
      layer if with_rope else dataclasses.replace(layer, rope=None)
      for layer, with_rope in zip(layers, rotary, strict=False)
    ),
    qkv_bias=raw["attention_bias"],
    out_bias=raw["attention_bias"],
    mlp_bias=raw["mlp_bias"],
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  types = written_types(config)
  return dict(
    **write_common(config),
    **write_rope(only_rope(config)),
    no_rope_layers=[int(layer.rope is not None) for layer in config.layers],
    use_sliding_window=SLIDING in types,
    sliding_window=only_window(config),
    layer_types=types,
    attention_bias=config.qkv_bias,
    mlp_bias=config.mlp_bias,
  )


SMOLLM3 = Family(
  model_type="smollm3",
  architecture="SmolLM3ForCausalLM",
  defaults=dict(
    num_key_value_heads=4,
    rms_norm_eps=1e-6,
    max_position_embeddings=32768,
    rope_theta=2_000_000.0,
    use_sliding_window=False,
    sliding_window=None,
    no_rope_layer_interval=4,
    attention_bias=False,
    mlp_bias=False,
    tie_word_embeddings=True,
  ),
  read=read,
  write=write,
  recipes=decoder_recipes,
)
