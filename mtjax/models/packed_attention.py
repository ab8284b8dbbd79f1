"""Attention of a model that is packed for decoding: native code where it applies, else as usual."""

from typing import Any

import jax
from jaxtyping import Array, Float

from kernels_pallas.frontier_attention import blocks
from kernels_pallas.frontier_attention import dispatch as choice
from mtjax.models.attention import attention, bound
from mtjax.native import attention as native
from mtjax.native import matmul

# Measured up to here; of more entries the mask itself, T x T, is much to write and read.
MAX_ENTRIES = 256


def packed_attention(
  *arguments: Any, **options: Any
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes `attention`, with the same arguments: equal up to rounding, and without gradient.

  It is for the layers whose weights are packed (`mtjax.models.pack`): their products have no
  gradient either, and decoding is what they are for.
  """
  values = bound(arguments, options)
  if why_not(values) is not None:
    return attention(*arguments, **options)
  labels = {name: values[name] for name in ("stamp", "lo", "hi", "hidden", "own")}
  width, first_head = values["q"].shape[3], values["first_head"]
  return native.native_attention(
    *(values[name] for name in ("q", "cache_k", "cache_v", "lengths")),
    0 if first_head is None else first_head,
    values["k"],
    values["v"],
    blocks.visible(**labels),
    width**-0.5 if values["scale"] is None else values["scale"],
  )


def why_not(values: dict[str, Any]) -> str | None:
  """Returns why native code cannot compute `frontier_attention` of these values; None: it can."""
  if values["implementation"] is not None:
    return f"the implementation is {values['implementation']}"
  if values["cache_k"] is None:
    return "there is no cache"
  for name in ("page_table", "kv_scales", "window", "soft_cap", "block_sizes"):
    if values[name] is not None:
      return f"it has no {name}"
  if values["q"].shape[1] > MAX_ENTRIES:
    return f"it is for {MAX_ENTRIES} entries, not {values['q'].shape[1]}"
  if jax.sharding.get_abstract_mesh().axis_names or choice.platform_here() != "cpu":
    return "it is for one CPU"
  return native.why_not(values["q"], values["cache_k"], values["k"]) or matmul.support()
