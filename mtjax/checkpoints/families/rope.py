"""Rotary settings in config.json, in the form of transformers 5 (rope_parameters) and before."""

import math
import warnings
from typing import Any

from mtjax.checkpoints.families.family import FULL
from mtjax.checkpoints.families.fields import KINDS, ROPE, Fields
from mtjax.models import Rope, TransformerConfig

_KINDS = ("default", "linear", "llama3", "yarn")


def read_rope(raw: Fields) -> Rope:
  """Returns the settings of all layers; an older rope_scaling replaces rope_parameters whole.

  So does transformers 5 (RotaryEmbeddingConfigMixin.convert_rope_params_to_dict). rope_theta is
  then the one in rope_scaling, else the one of config.json, else the family's default; a warning
  says so where rope_parameters has another. Raises ValueError for a rope type that the network
  lacks.
  """
  theta, given = raw.get("rope_theta"), settings(raw, "rope_parameters", FULL)
  if not raw.get("rope_scaling"):
    return make_rope(raw, given, theta)
  rope = make_rope(raw, settings(raw, "rope_scaling", FULL), theta)
  lost = given.get("rope_theta")
  if lost is not None and lost != rope.theta:
    warnings.warn(
      f"rope_scaling of config.json replaces rope_parameters, as in transformers, and with it "
      f"rope_theta {lost}: {rope.theta} is used. Put rope_theta into rope_scaling to keep it",
      stacklevel=2,
    )
  return rope


def settings(raw: Fields, name: str, kind: str) -> Fields:
  """What a field says of the layers of a kind: the same for all, or kind by kind."""
  given = raw.get(name) or {}
  if KINDS.keys() & given.keys():
    given = Fields(given, KINDS, name).get(kind) or {}
  return Fields(given, ROPE, name)


def make_rope(raw: Fields, given: Fields, theta: float | None) -> Rope:
  """The rope of `given`, in which `theta` is used if there is none (None: 10,000)."""
  theta = given.get("rope_theta") or theta or 10_000.0
  name = given.get("rope_type") or given.get("type") or "default"
  if name not in _KINDS:
    raise ValueError(f"rope type {name!r} is not one of: {', '.join(_KINDS)}")
  part = given.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0
  if part != 1:
    raise ValueError(f"partial_rotary_factor must be 1 (whole heads are rotated), got {part}")
  if name == "default":
    return Rope(theta=float(theta))
  if name == "linear":
    return Rope(theta=float(theta), kind="linear", factor=float(_need(given, "factor", name)))
  longest = raw["max_position_embeddings"]
  original = given.get("original_max_position_embeddings") or longest
  if name == "llama3":
    return Rope(
      theta=float(theta),
      kind="llama3",
      factor=float(_need(given, "factor", name)),
      low_freq_factor=float(_need(given, "low_freq_factor", name)),
      high_freq_factor=float(_need(given, "high_freq_factor", name)),
      original_max_position=original,
    )
  factor = float(given.get("factor") or longest / original)
  return Rope(
    theta=float(theta),
    kind="yarn",
    factor=factor,
    original_max_position=original,
    beta_fast=float(given.get("beta_fast") or 32),
    beta_slow=float(given.get("beta_slow") or 1),
    attention_factor=_attention_factor(given, factor),
    truncate=given.get("truncate", True) is True,
  )


def write_rope(rope: Rope) -> dict[str, Any]:
  """One set of settings for all layers, under the new and under the old names."""
  scaling = rope_scaling(rope)
  return dict(
    rope_theta=rope.theta,
    rope_scaling=scaling,
    rope_parameters={"rope_theta": rope.theta, **(scaling or {"rope_type": "default"})},
  )


def rope_scaling(rope: Rope) -> dict[str, Any] | None:
  """What distinguishes it from plain rotary positions; None for plain ones."""
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
  """The settings of the first layer that has any."""
  return next((layer.rope for layer in config.layers if layer.rope is not None), Rope())


def _need(given: Fields, field: str, name: str) -> float:
  value = given.get(field)
  if value is None:
    raise ValueError(f"rope type {name!r} needs {field!r}, config.json has none")
  return value


def _attention_factor(given, factor) -> float:
  fixed = given.get("attention_factor")
  if fixed is not None:
    return float(fixed)

  def scale(by):
    return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

  over, under = given.get("mscale"), given.get("mscale_all_dim")
  return scale(over) / scale(under) if over and under else scale(1.0)
