"""Rotary settings of a GGUF file, also those that it has as a tensor of factors (Llama 3.1)."""

from typing import Any

import numpy as np

from mtjax.data.gguf.header import GgufHeader

# Llama 3.x has these; a file holds only the factors that follow from them.
_LOW, _HIGH = 1.0, 4.0
_ORIGINAL = tuple(2**power for power in range(5, 21))


def rope_fields(
  header: GgufHeader, name: str, head_dim: int, factors: np.ndarray | None
) -> dict[str, Any]:
  """Returns rope_theta and, if positions are scaled, rope_scaling.

  `factors`: what rope_freqs.weight divides the frequencies by, or None. Raises ValueError for a
  scaling that is not known, and for factors that are none of Llama 3's.
  """

  def key(field: str) -> str:
    return f"{name}.rope.{field}"

  theta = header.number(key("freq_base"), 10_000.0)
  fields: dict[str, Any] = dict(rope_theta=theta)
  # Without a type, llama.cpp takes the factor as that of linear scaling; the last name is older.
  kind = header.text(key("scaling.type"), "linear")
  factor = header.number(key("scaling.factor"), header.number(key("scale_linear"), 1.0)) or 1.0
  scaled = kind != "none" and factor != 1
  if kind not in ("none", "linear", "yarn"):
    raise ValueError(
      f"{key('scaling.type')} of {header.file} is {kind!r:.40}; known: none, linear, yarn"
    )
  if factors is not None and not np.all(factors == 1):
    if scaled:
      raise ValueError(f"{header.file} has both {key('scaling.factor')} and rope_freqs.weight")
    return fields | dict(rope_scaling=_llama3(header, factors, theta, head_dim))
  if not scaled:
    return fields
  scaling: dict[str, Any] = dict(rope_type=kind, factor=factor)
  if kind == "yarn":
    scaling |= dict(
      original_max_position_embeddings=header.whole(key("scaling.original_context_length")),
      beta_fast=header.number(key("scaling.yarn_beta_fast"), 32.0),
      beta_slow=header.number(key("scaling.yarn_beta_slow"), 1.0),
    )
  return fields | dict(rope_scaling=scaling)


def _llama3(header: GgufHeader, factors: np.ndarray, theta: float, head_dim: int) -> dict[str, Any]:
  """Returns the settings whose factors these are, by trial: only the length varies."""
  factor = float(factors.max())
  for original in _ORIGINAL:
    expected = llama3_factors(theta, head_dim, factor, original)
    if factors.shape == expected.shape and np.allclose(factors, expected, rtol=1e-4):
      return dict(
        rope_type="llama3",
        factor=factor,
        low_freq_factor=_LOW,
        high_freq_factor=_HIGH,
        original_max_position_embeddings=original,
      )
  raise ValueError(
    f"rope_freqs.weight of {header.file} has factors that are not Llama 3's for a head of "
    f"{head_dim} and a theta of {theta:g}; others are not supported"
  )


def llama3_factors(theta: float, head_dim: int, factor: float, original: int) -> np.ndarray:
  """Returns what llama3 scaling divides each frequency by (conversion/llama.py of llama.cpp)."""
  lengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
  share = np.clip((original / lengths - _LOW) / (_HIGH - _LOW), 0, 1)
  return 1 / ((1 - share) / factor + share)
