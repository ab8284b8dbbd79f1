"""Qwen 2, 2.5 (a bias on q, k and v, without a field for it) and 3 (a norm per head instead)."""

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

_DEFAULTS = dict(
  num_key_value_heads=32,
  rms_norm_eps=1e-6,
  max_position_embeddings=32768,
  use_sliding_window=False,
  sliding_window=4096,
  max_window_layers=28,
  attention_bias=False,
  tie_word_embeddings=False,
)


def read_qwen2(raw: Fields) -> TransformerConfig:
  return TransformerConfig(**read_common(raw), layers=_layers(raw), qkv_bias=True)


def read_qwen3(raw: Fields) -> TransformerConfig:
  bias = raw["attention_bias"]
  return TransformerConfig(
    **read_common(raw), layers=_layers(raw), qk_norm="head", qkv_bias=bias, out_bias=bias
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  types = written_types(config)
  return dict(
    **write_common(config),
    **write_rope(only_rope(config)),
    use_sliding_window=SLIDING in types,
    sliding_window=only_window(config),
    # For readers that ignore layer_types: this number of first layers have full attention.
    max_window_layers=types.index(SLIDING) if SLIDING in types else len(types),
    layer_types=types,
  )


def write_qwen3(config: TransformerConfig) -> dict[str, Any]:
  return dict(write(config), attention_bias=config.qkv_bias)


def _layers(raw: Fields):
  window = raw["sliding_window"] if raw["use_sliding_window"] else None

  def default(index):
    return SLIDING if window is not None and index >= raw["max_window_layers"] else FULL

  types = layer_types(raw, window, default)
  rope = read_rope(raw)
  return make_layers(types, window, {FULL: rope, SLIDING: rope})


QWEN2 = Family(
  model_type="qwen2",
  architecture="Qwen2ForCausalLM",
  defaults=_DEFAULTS,
  read=read_qwen2,
  write=write,
  recipes=decoder_recipes,
)

QWEN3 = Family(
  model_type="qwen3",
  architecture="Qwen3ForCausalLM",
  defaults=dict(_DEFAULTS, head_dim=128),
  read=read_qwen3,
  write=write_qwen3,
  recipes=decoder_recipes,
)
