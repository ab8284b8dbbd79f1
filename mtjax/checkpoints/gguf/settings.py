"""The settings in a GGUF's metadata as the fields of a config.json."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mtjax.checkpoints.families.family import FULL, SLIDING
from mtjax.checkpoints.gguf.rope import rope_fields
from mtjax.checkpoints.gguf.tensors import GgufTensors
from mtjax.data.gguf.header import GgufHeader

# Settings that every architecture may have; those of the second line change nothing.
_KEYS = {
  *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
  *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
  *("attention.key_length", "attention.value_length", "attention.causal"),
  *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
  *("rope.scaling.original_context_length", "rope.scale_linear"),
  *("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
  *("rope.scaling.finetuned", "tensor_data_layout"),
}
# Numbers of layers of the models of 27 B, whose scores have another scale (src/models/gemma*.cpp).
_LAYERS_27B = {"gemma2": 46, "gemma3": 62}


def read_settings(stored: GgufTensors) -> dict[str, Any]:
  """Returns the fields that `mtjax.checkpoints.families.read_config` reads and checks.

  Raises ValueError that names the file and the key for a setting that is missing or of another
  type, and for one that is not known: it might change the logits.
  """
  header, name = stored.header, stored.name
  _check_keys(header, name, _KEYS | stored.architecture.keys)

  def key(field: str) -> str:
    return f"{name}.{field}"

  heads = header.whole(key("attention.head_count"))
  dim = header.whole(key("embedding_length"))
  head_dim = header.whole(key("attention.key_length"), dim // max(heads, 1))
  for field in ("attention.value_length", "rope.dimension_count"):
    if header.whole(key(field), head_dim) != head_dim:
      raise ValueError(
        f"{key(field)} of {header.file} is {header.whole(key(field))}; it must be that of keys, "
        f"{head_dim}"
      )
  names = stored.tensors
  has_bias = any(x.endswith("self_attn.q_proj.bias") for x in names)
  return dict(
    model_type=stored.architecture.model_type,
    vocab_size=_vocab_size(stored),
    hidden_size=dim,
    intermediate_size=header.whole(key("feed_forward_length")),
    num_hidden_layers=header.whole(key("block_count")),
    num_attention_heads=heads,
    num_key_value_heads=header.whole(key("attention.head_count_kv"), heads),
    head_dim=head_dim,
    rms_norm_eps=header.number(key("attention.layer_norm_rms_epsilon")),
    max_position_embeddings=header.whole(key("context_length")),
    tie_word_embeddings="lm_head.weight" not in names,
    attention_bias=has_bias,
    mlp_bias=any(x.endswith("mlp.up_proj.bias") for x in names),
    **rope_fields(header, name, head_dim, stored.rope_factors()),
    **_OF_ARCHITECTURE.get(name, lambda header, fields: {})(
      header, dict(heads=heads, dim=dim, head_dim=head_dim)
    ),
  )


def _gemma2(header: GgufHeader, sizes: dict[str, int]) -> dict[str, Any]:
  types = _layer_types(header, "gemma2", 2)
  return dict(
    query_pre_attn_scalar=_scalar(header, "gemma2", sizes),
    sliding_window=header.whole("gemma2.attention.sliding_window", 4096),
    layer_types=types,
    attn_logit_softcapping=header.number("gemma2.attn_logit_softcapping", 50.0),
    final_logit_softcapping=header.number("gemma2.final_logit_softcapping", 30.0),
  )


def _gemma3(header: GgufHeader, sizes: dict[str, int]) -> dict[str, Any]:
  window = header.whole("gemma3.attention.sliding_window", 0)
  layers = header.whole("gemma3.block_count")
  fields = dict(
    query_pre_attn_scalar=_scalar(header, "gemma3", sizes),
    sliding_window=window or 4096,
    layer_types=_layer_types(header, "gemma3", 6) if window else [FULL] * layers,
    rope_local_base_freq=header.number("gemma3.rope.freq_base_swa", 10_000.0),
  )
  cap = header.number("gemma3.final_logit_softcapping", 0.0)
  return fields | (dict(final_logit_softcapping=cap) if cap else {})


_OF_ARCHITECTURE: dict[str, Callable[[GgufHeader, dict[str, int]], dict[str, Any]]] = {
  "gemma2": _gemma2,
  "gemma3": _gemma3,
}


def _scalar(header: GgufHeader, name: str, sizes: dict[str, int]) -> int:
  """Returns what the scores are divided by the root of, which the file does not say."""
  if header.whole(f"{name}.block_count") == _LAYERS_27B[name]:
    return sizes["dim"] // sizes["heads"]
  return sizes["head_dim"]


def _layer_types(header: GgufHeader, name: str, every: int) -> list[str]:
  """Returns the kind of each layer: every n-th is full, or as a list of the file says."""
  key, layers = f"{name}.attention.sliding_window_pattern", header.whole(f"{name}.block_count")
  value = header.values.get(key)
  if isinstance(value, np.ndarray):
    return [SLIDING if is_sliding else FULL for is_sliding in value[:layers]]
  every = header.whole(key, every)
  # 0: no layer is full.
  return [FULL if every and index % every == every - 1 else SLIDING for index in range(layers)]


def _vocab_size(stored: GgufTensors) -> int:
  """Returns the rows of the embedding; without it, what the metadata says (and match refuses)."""
  table = stored.tensors.get("model.embed_tokens.weight")
  if table is not None and table.shape:
    return table.shape[0]
  header = stored.header
  return header.whole(f"{stored.name}.vocab_size", len(header.texts("tokenizer.ggml.tokens", [])))


def _check_keys(header: GgufHeader, name: str, known: set[str]) -> None:
  prefix = f"{name}."
  for key, value in header.values.items():
    if not key.startswith(prefix) or key.removeprefix(prefix) in known:
      continue
    # 0 experts, for example: what a setting switches on is off.
    if isinstance(value, list | np.ndarray | str) or value:
      what = "a mixture of experts" if ".expert" in key else "a setting that is not supported"
      raise ValueError(f"{header.file} has {key}, {what}: the logits would be wrong without it")
  if not header.flag(f"{prefix}attention.causal", True):
    raise ValueError(f"{header.file} is no causal model: {prefix}attention.causal is false")
