"""Fields of config.json and their allowed values, checked where a family reads them.

A field that no family reads may hold anything. The limits are far beyond every published model;
they refuse damaged files with sizes whose network would take hours to describe.
"""

import dataclasses
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rule:
  """The condition on a value, in words and as a test."""

  meaning: str
  allows: Callable[[Any], bool]


class Fields:
  """A JSON object whose values are checked by rules when they are read.

  `place` says where it is in the file. Reading raises ValueError that names the field.
  """

  def __init__(self, values: Mapping[str, Any], rules: Mapping[str, Rule], place: str):
    self._values, self._rules, self._place = values, rules, place

  def __getitem__(self, name: str) -> Any:
    """Returns the value of a required field; null counts as missing, unless the rule allows it."""
    value, rule = self._values.get(name), self._rules[name]
    if rule.allows(value) and name in self._values:
      return value
    if value is None:
      raise ValueError(f"{self._place} has no {name!r}, which must be {rule.meaning}")
    raise ValueError(f"{name} of {self._place} must be {rule.meaning}, got {reprlib.repr(value)}")

  def get(self, name: str, otherwise: Any = None) -> Any:
    """Returns the value of a field, or `otherwise` if the object lacks it."""
    return self[name] if name in self._values else otherwise

  def __contains__(self, name: str) -> bool:
    return name in self._values

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def updated(self, other: "Fields") -> "Fields":
    """Returns this object updated with the fields of another one with the same rules."""
    return Fields({**self._values, **other._values}, self._rules, other._place)


def _whole(low: int, high: int) -> Rule:
  return Rule(
    f"a whole number from {low} to {high}",
    lambda x: isinstance(x, int) and not isinstance(x, bool) and low <= x <= high,
  )


def _number(low: float, high: float) -> Rule:
  # Written so that NaN is refused.
  return Rule(
    f"a number from {low:g} to {high:g}",
    lambda x: isinstance(x, int | float) and not isinstance(x, bool) and low <= x <= high,
  )


def _or_null(rule: Rule) -> Rule:
  return Rule(f"{rule.meaning}, or null", lambda x: x is None or rule.allows(x))


def _list_of(rule: Rule) -> Rule:
  return Rule(
    f"a list, each {rule.meaning}", lambda x: isinstance(x, list) and all(map(rule.allows, x))
  )


def _either(one: Rule, other: Rule) -> Rule:
  return Rule(f"{one.meaning} or {other.meaning}", lambda x: one.allows(x) or other.allows(x))


_TRUTH = Rule("true or false", lambda x: isinstance(x, bool))
_WORD = Rule("a word", lambda x: isinstance(x, str) and x != "")
_OBJECT = Rule("an object", lambda x: isinstance(x, dict))
# The family compares it with the only value that the network supports.
_ANYTHING = Rule("anything", lambda x: True)

_COUNT = _whole(1, 2**30)  # a number of positions
_WIDTH = _whole(1, 2**20)
_ROWS = _whole(1, 2**24)
_HEADS = _whole(1, 1024)
_LAYERS = _whole(1, 4096)
_EPS = _number(1e-30, 1)
_THETA = _number(2, 1e18)
_CAP = _number(1e-3, 1e9)

CONFIG = {
  "model_type": _WORD,
  "text_config": _OBJECT,
  "backbone_config": _OBJECT,
  "_target_": _WORD,
  "architectures": _or_null(_list_of(_WORD)),
  "quantization_config": _ANYTHING,
  "exits": _or_null(_list_of(_LAYERS)),
  # Sizes.
  "vocab_size": _ROWS,
  "hidden_size": _WIDTH,
  "d_model": _WIDTH,
  "n_embd": _WIDTH,
  "intermediate_size": _ROWS,
  "d_inner": _ROWS,
  "n_inner": _or_null(_ROWS),
  "mlp_hidden_size": _or_null(_ROWS),
  "mlp_ratio": _whole(1, 1024),
  "num_hidden_layers": _LAYERS,
  "n_layer": _LAYERS,
  "n_layers": _LAYERS,
  "num_layers": _LAYERS,
  "num_attention_heads": _HEADS,
  "n_head": _HEADS,
  "n_heads": _HEADS,
  "n_kv_heads": _or_null(_HEADS),
  "num_key_value_heads": _or_null(_HEADS),
  "head_dim": _or_null(_whole(1, 2**16)),
  "max_position_embeddings": _COUNT,
  "n_positions": _COUNT,
  "max_sequence_length": _COUNT,
  "embedding_size": _or_null(_ROWS),
  "global_head_dim": _whole(1, 2**16),
  "num_global_key_value_heads": _or_null(_HEADS),
  "per_layer_config": _or_null(_OBJECT),
  "num_experts": _whole(1, 2**16),
  "top_k_experts": _whole(1, 2**16),
  "moe_intermediate_size": _ROWS,
  "canvas_length": _COUNT,
  "extra_embeddings": _WIDTH,
  "extra_names": _list_of(_WORD),
  "predicts": _WORD,
  "target_conditioning": _WORD,
  "any_subset_rows": _WORD,
  # Norms, activations, biases, heads.
  "rms_norm_eps": _EPS,
  "layer_norm_eps": _EPS,
  "layer_norm_epsilon": _EPS,
  "hidden_act": _or_null(_WORD),
  "hidden_activation": _or_null(_WORD),
  "activation_function": _WORD,
  "ff_activation": _WORD,
  "activation_type": _WORD,
  "attention_bias": _TRUTH,
  "include_qkv_bias": _or_null(_TRUTH),
  "mlp_bias": _TRUTH,
  "tie_word_embeddings": _TRUTH,
  "weight_tying": _TRUTH,
  # Attention.
  "sliding_window": _or_null(_COUNT),
  "use_sliding_window": _TRUTH,
  "max_window_layers": _whole(0, 2**30),
  "sliding_window_pattern": _COUNT,
  "layer_types": _or_null(_list_of(_WORD)),
  "no_rope_layers": _or_null(_list_of(_either(_whole(0, 1), _TRUTH))),
  "no_rope_layer_interval": _COUNT,
  "query_pre_attn_scalar": _number(1e-6, 1e9),
  "attn_logit_softcapping": _or_null(_CAP),
  "final_logit_softcapping": _or_null(_CAP),
  "use_bidirectional_attention": _or_null(_either(_TRUTH, _WORD)),
  "scale_attn_weights": _TRUTH,
  "scale_attn_by_inverse_layer_idx": _or_null(_TRUTH),
  "add_cross_attention": _or_null(_TRUTH),
  "multi_query_attention": _or_null(_TRUTH),
  # Masks and blocks.
  "mask_token_id": _whole(0, 2**24),
  "mask_index": _whole(0, 2**24),
  "alignment": _WORD,
  "noise": _WORD,
  "block_length": _whole(1, 2**20),
  "block_size": _whole(1, 2**20),
  "bd_size": _whole(1, 2**20),
  # MDLM's and BD3-LM's.
  "hidden_dim": _WIDTH,
  "cond_dim": _WIDTH,
  "n_blocks": _LAYERS,
  "model_length": _COUNT,
  "length": _COUNT,
  "diffusion_attn_mode": _WORD,
  "sequential_attn_mode": _WORD,
  **dict.fromkeys(
    ("adaln", "cross_attn", "causal", "causal_attention", "time_conditioning"), _TRUTH
  ),
  # LLaDA's.
  **dict.fromkeys(
    (
      "block_type",
      "layer_norm_type",
      "layer_norm_with_affine",
      "attention_layer_norm",
      "bias_for_layer_norm",
      "rope",
      "alibi",
      "include_bias",
      "input_emb_norm",
      "scale_logits",
      "block_group_size",
    ),
    _ANYTHING,
  ),
  # XLNet's.
  **dict.fromkeys(("attn_type", "bi_data", "clamp_len", "same_length", "untie_r"), _ANYTHING),
  # Rotary positions; ROPE has the fields of the first two.
  "rope_parameters": _or_null(_OBJECT),
  "rope_scaling": _or_null(_OBJECT),
  "rope_theta": _or_null(_THETA),
  "rope_local_base_freq": _THETA,
  "partial_rotary_factor": _or_null(_number(0, 1)),
}

# Rotary settings by kind of layer, and their fields.
KINDS = {name: _or_null(_OBJECT) for name in ("full_attention", "sliding_attention")}
ROPE = {
  "rope_type": _or_null(_WORD),
  "type": _or_null(_WORD),
  "rope_theta": _or_null(_THETA),
  "partial_rotary_factor": _or_null(_number(0, 1)),
  "factor": _or_null(_number(1e-6, 1e6)),
  "low_freq_factor": _or_null(_number(1e-6, 1e6)),
  "high_freq_factor": _or_null(_number(1e-6, 1e6)),
  "original_max_position_embeddings": _or_null(_COUNT),
  "beta_fast": _or_null(_number(1e-3, 1e6)),
  "beta_slow": _or_null(_number(1e-3, 1e6)),
  "attention_factor": _or_null(_number(1e-6, 1e6)),
  "mscale": _or_null(_number(0, 1e6)),
  "mscale_all_dim": _or_null(_number(0, 1e6)),
  "truncate": _or_null(_TRUTH),
}
