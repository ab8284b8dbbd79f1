"""Gemma 2 and the text models of Gemma 3: norms of 1 + w around branches, scaled embeddings."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import (
  FULL,
  SLIDING,
  Family,
  heads_must_divide,
  layer_types,
  make_layers,
  only_window,
  read_common,
  write_common,
  written_types,
)
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.rope import (
  make_rope,
  read_rope,
  rope_scaling,
  settings,
  write_rope,
)
from mtjax.models import Rope, TransformerConfig

_DEFAULTS = dict(
  vocab_size=256000,
  hidden_size=2304,
  intermediate_size=9216,
  num_hidden_layers=26,
  num_attention_heads=8,
  num_key_value_heads=4,
  head_dim=256,
  hidden_activation="gelu_pytorch_tanh",
  max_position_embeddings=8192,
  rms_norm_eps=1e-6,
  attention_bias=False,
  query_pre_attn_scalar=256,
  sliding_window=4096,
  tie_word_embeddings=True,
)


def read_gemma2(raw: Fields) -> TransformerConfig:
  rope = read_rope(raw)
  window = raw["sliding_window"]
  types = layer_types(raw, window, lambda index: FULL if index % 2 else SLIDING)
  layers = make_layers(types, window, {FULL: rope, SLIDING: rope})
  return _config(raw, layers=layers)


def read_gemma3(raw: Fields) -> TransformerConfig:
  every, window = raw["sliding_window_pattern"], raw["sliding_window"]
  types = layer_types(raw, window, lambda index: SLIDING if (index + 1) % every else FULL)
  # Here rope_scaling is added to rope_parameters, and it does not change windowed layers.
  full, local = (settings(raw, "rope_parameters", kind) for kind in (FULL, SLIDING))
  full = full.updated(settings(raw, "rope_scaling", FULL))
  ropes = {
    FULL: make_rope(raw, full, raw["rope_theta"]),
    SLIDING: make_rope(raw, local, raw["rope_local_base_freq"]),
  }
  layers = make_layers(types, window, ropes)
  return _config(raw, layers=layers, qk_norm="head")


def write_gemma2(config: TransformerConfig) -> dict[str, Any]:
  rope = next((layer.rope for layer in config.layers if layer.rope is not None), Rope())
  return dict(_write(config), **write_rope(rope))


def write_gemma3(config: TransformerConfig) -> dict[str, Any]:
  local = _first_rope(config, SLIDING) or Rope()
  full = _first_rope(config, FULL) or Rope()
  scaling = rope_scaling(full)
  return dict(
    _write(config),
    rope_theta=full.theta,
    rope_scaling=scaling,
    rope_local_base_freq=local.theta,
    rope_parameters={
      SLIDING: dict(rope_type="default", rope_theta=local.theta),
      FULL: {"rope_theta": full.theta, **(scaling or {"rope_type": "default"})},
    },
  )


def _config(raw, **fields) -> TransformerConfig:
  if raw.get("use_bidirectional_attention"):
    raise ValueError("a Gemma with use_bidirectional_attention is no causal language model")
  common = read_common(raw)
  return TransformerConfig(
    **common,
    **fields,
    norm="rms_plus_one",
    norm_placement="sandwich",
    qkv_bias=raw["attention_bias"],
    out_bias=raw["attention_bias"],
    attention_scale=raw["query_pre_attn_scalar"] ** -0.5,
    attention_soft_cap=raw.get("attn_logit_softcapping"),
    logit_soft_cap=raw.get("final_logit_softcapping"),
    embedding_scale=common["dim"] ** 0.5,
  )


def _write(config: TransformerConfig) -> dict[str, Any]:
  common = write_common(config)
  scale = config.attention_scale or config.head_dim**-0.5
  return dict(
    **common,
    hidden_activation=common["hidden_act"],
    attention_bias=config.qkv_bias,
    query_pre_attn_scalar=round(scale**-2),
    attn_logit_softcapping=config.attention_soft_cap,
    final_logit_softcapping=config.logit_soft_cap,
    # A window is required even if no layer has one.
    sliding_window=only_window(config) or config.max_position,
    layer_types=written_types(config),
  )


def _first_rope(config: TransformerConfig, kind: str) -> Rope | None:
  types = written_types(config)
  ropes = (layer.rope for layer, k in zip(config.layers, types, strict=True) if k == kind)
  return next(ropes, None)


GEMMA2 = Family(
  model_type="gemma2",
  architecture="Gemma2ForCausalLM",
  defaults=dict(_DEFAULTS, attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
  read=read_gemma2,
  write=write_gemma2,
  recipes=decoder_recipes,
  refusal=heads_must_divide,
)

GEMMA3 = Family(
  model_type="gemma3_text",
  architecture="Gemma3ForCausalLM",
  defaults=dict(
    _DEFAULTS,
    vocab_size=262208,
    max_position_embeddings=131072,
    rope_theta=1_000_000.0,
    rope_local_base_freq=10_000.0,
    sliding_window_pattern=6,
  ),
  read=read_gemma3,
  write=write_gemma3,
  recipes=decoder_recipes,
  refusal=heads_must_divide,
)
