"""Rotary settings in config.json, as in transformers 5 (rope_parameters) and in older versions."""

import math
import warnings
from typing import Any

from mtjax.checkpoints.families.family import FULL
from mtjax.checkpoints.families.fields import KINDS, ROPE, Fields
from mtjax.models import Rope, TransformerConfig

_KINDS = ("default", "linear", "llama3", "yarn")


def read_rope(raw: Fields) -> Rope:
  """Returns the settings of all layers; an older rope_scaling replaces all of rope_parameters.

  This is as in transformers 5 (RotaryEmbeddingConfigMixin.convert_rope_params_to_dict). rope_theta
  is then that of rope_scaling, else that of config.json, else the family's default; a warning says
  so if rope_parameters has another one. Raises ValueError for a rope type that the network lacks.
  """
  theta, parameters = raw.get("rope_theta"), settings(raw, "rope_parameters", FULL)
  if not raw.get("rope_scaling"):
    return make_rope(raw, parameters, theta)
  rope = make_rope(raw, settings(raw, "rope_scaling", FULL), theta)
  lost = parameters.get("rope_theta")
  if lost is not None and lost != rope.theta:
    warnings.warn(
      f"rope_scaling of config.json replaces rope_parameters, as in transformers, and with it "
      f"rope_theta {lost}: {rope.theta} is used. Put rope_theta into rope_scaling to keep it",
      stacklevel=2,
    )
  return rope


def settings(raw: Fields, name: str, kind: str) -> Fields:
  """Returns a field's settings for layers of a kind; the field may have one set per kind."""
  values = raw.get(name) or {}
  if KINDS.keys() & values.keys():
    values = Fields(values, KINDS, name).get(kind) or {}
  return Fields(values, ROPE, name)


def make_rope(raw: Fields, values: Fields, theta: float | None) -> Rope:
  """Returns the rope of `values`; without rope_theta there, `theta` is used (None: 10,000)."""
  theta = values.get("rope_theta") or theta or 10_000.0
  name = values.get("rope_type") or values.get("type") or "default"
  if name not in _KINDS:
    raise ValueError(f"rope type {name!r} is not one of: {', '.join(_KINDS)}")
  part = values.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0
  if part != 1:
    raise ValueError(f"partial_rotary_factor must be 1 (whole heads are rotated), got {part}")
  if name == "default":
    return Rope(theta=float(theta))
  if name == "linear":
    return Rope(theta=float(theta), kind="linear", factor=float(_need(values, "factor", name)))
  longest = raw["max_position_embeddings"]
  original = values.get("original_max_position_embeddings") or longest
  if name == "llama3":
    return Rope(
      theta=float(theta),
      kind="llama3",
      factor=float(_need(values, "factor", name)),
      low_freq_factor=float(_need(values, "low_freq_factor", name)),
      high_freq_factor=float(_need(values, "high_freq_factor", name)),
      original_max_position=original,
    )
  factor = float(values.get("factor") or longest / original)
  return Rope(
    theta=float(theta),
    kind="yarn",
    factor=factor,
    original_max_position=original,
    beta_fast=float(values.get("beta_fast") or 32),
    beta_slow=float(values.get("beta_slow") or 1),
    attention_factor=_attention_factor(values, factor),
    truncate=values.get("truncate", True) is True,
  )


def write_rope(rope: Rope) -> dict[str, Any]:
  """Returns one set of fields for all layers, under the new and under the old names."""
  scaling = rope_scaling(rope)
  return dict(
    rope_theta=rope.theta,
    rope_scaling=scaling,
    rope_parameters={"rope_theta": rope.theta, **(scaling or {"rope_type": "default"})},
  )


def rope_scaling(rope: Rope) -> dict[str, Any] | None:
  """Returns the fields of rope_scaling, or None for plain rotary positions."""
  if rope.kind == "default":
    return None
  out: dict[str, Any] = dict(rope_type=rope.kind, factor=rope.factor)
  if rope.kind == "llama3":
    out.update(low_freq_factor=rope.low_freq_factor, high_freq_factor=rope.high_freq_factor)
  if rope.kind == "yarn":
    out.update(beta_fast=rope.beta_fast, beta_slow=rope.beta_slow)
    out.update(attention_factor=rope.attention_factor, truncate=rope.truncate)
  if rope.kind in ("llama3", "yarn"):
    out.update(original_max_position_embeddings=rope.original_max_position)
  return out


def only_rope(config: TransformerConfig) -> Rope:
  """Returns the settings of the first layer with rotary positions, or the defaults."""
  return next((layer.rope for layer in config.layers if layer.rope is not None), Rope())


def _need(values: Fields, field: str, name: str) -> float:
  value = values.get(field)
  if value is None:
    raise ValueError(f"rope type {name!r} needs {field!r}, which config.json lacks")
  return value


def _attention_factor(values, factor) -> float:
  fixed = values.get("attention_factor")
  if fixed is not None:
    return float(fixed)

  def scale(by):
    return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

  over, under = values.get("mscale"), values.get("mscale_all_dim")
  return scale(over) / scale(under) if over and under else scale(1.0)
