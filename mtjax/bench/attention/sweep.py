"""Attention over a cache on a device: bandwidth over shapes, and one layer over its entries."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from kernels_pallas.frontier_attention import frontier_attention
from kernels_pallas.frontier_attention.dispatch import Implementation
from mtjax.bench.attention import inputs as kernel_inputs
from mtjax.bench.attention.clock import check_fits, memory_limit, seconds_per_call
from mtjax.bench.attention.correctness import why_not
from mtjax.bench.attention.kernels import AttentionShape
from mtjax.bench.attention.limits import DeviceLimits, Need, need
from mtjax.bench.latency_model import Latency, fitted

_ARRAYS = ("k", "v", "cache_k", "cache_v")  # a layer's own; labels, lengths and tables are shared
_MOST_SETS = 16


@dataclasses.dataclass(frozen=True)
class SweepPoint:
  """One call as measured, beside what it needs at least."""

  shape: AttentionShape
  system: str
  seconds: float | None  # None: not measured, see `why`
  need: Need
  limits: DeviceLimits
  page: int | None = None  # slots of a page; None: contiguous
  why: str = ""
  difference: float | None = None  # the largest to another system's output, if it was compared

  @property
  def bandwidth_share(self) -> float:
    """What must be read and written, a second, of what a copy reads and writes."""
    assert self.seconds is not None, self.why
    return self.need.bytes / self.seconds / self.limits.copy_rate

  @property
  def flop_share(self) -> float:
    assert self.seconds is not None, self.why
    return self.need.flops / self.seconds / self.limits.matmul_rate

  def figures(self) -> dict[str, Any]:
    """For JSON."""
    found = dict(
      system=self.system, **dataclasses.asdict(self.shape), page=self.page, bytes=self.need.bytes,
      flops=self.need.flops, roofline_us=1e6 * self.need.seconds(self.limits),
    )  # fmt: skip
    if self.seconds is None:
      return found | dict(why=self.why)
    return found | dict(
      us=1e6 * self.seconds,
      bandwidth_share=self.bandwidth_share,
      flop_share=self.flop_share,
      difference=self.difference,
    )


def cached_bytes(platform: str) -> int:
  """What a device may keep between calls: twice the second-level cache of an H100 or more."""
  return (128 << 20) if platform in ("gpu", "cuda", "rocm") else 0


def sets_of(shape: AttentionShape, page: int | None, minimum: int) -> tuple[list[dict], dict]:
  """Arrays of as many layers as have `minimum` bytes in all, and what they share."""
  each = 2 * shape.batch * shape.kv_heads * shape.capacity * shape.width
  each *= jnp.dtype(shape.dtype).itemsize
  count = min(max(-(-minimum // max(each, 1)), 1), _MOST_SETS)
  check_fits((count + 1) * each, memory_limit())
  given = kernel_inputs.with_cache(shape, page)
  first = {name: given.pop(name) for name in _ARRAYS}
  others = [first | kernel_inputs.cache(shape, page, seed) for seed in range(1, count)]
  table = "page_table"  # one for all, as a model has
  return [first, *({n: x for n, x in one.items() if n != table} for one in others)], given


def measured(
  shape: AttentionShape,
  limits: DeviceLimits,
  name: Implementation,
  page: int | None = None,
  *,
  rounds: int = 5,
) -> SweepPoint:
  """An implementation over a cache, one call's outputs the next one's queries."""
  point = SweepPoint(shape, name, None, need(shape), limits, page)
  try:
    sets, shared = sets_of(shape, page, cached_bytes(limits.platform))
    q = shared.pop("q")
    if reason := why_not(name, dict(q=q, **sets[0], **shared)):
      return dataclasses.replace(point, why=reason)

    def call(q, arrays, shared):
      return frontier_attention(q, **arrays, **shared, implementation=name)[0]

    seconds = seconds_per_call(call, q, sets, shared, rounds=rounds)
  except Exception as error:  # noqa: BLE001 - compilers raise much, and the next shape may do
    return dataclasses.replace(point, why=short(error))
  return dataclasses.replace(point, seconds=seconds)


def short(error: Exception) -> str:
  lines = str(error).splitlines() or [type(error).__name__]
  return lines[0][:150]


def over_entries(points: Sequence[SweepPoint]) -> Latency | None:
  """The model of latency of points that differ in their entries; None: too few of them."""
  ran = [(p.shape.entries, p.seconds) for p in points if p.seconds is not None]
  return fitted(*zip(*ran, strict=True)) if len(ran) >= 3 else None
