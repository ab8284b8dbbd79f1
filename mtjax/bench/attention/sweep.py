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

_ARRAYS = ("k", "v", "cache_k", "cache_v")  # per layer; labels, lengths and tables are shared
_MAX_SETS = 16


@dataclasses.dataclass(frozen=True)
class SweepPoint:
  """The measured time of one call, and the minimum work that it needs."""

  shape: AttentionShape
  system: str
  seconds: float | None  # None: not measured, see `why`
  need: Need
  limits: DeviceLimits
  page: int | None = None  # slots per page; None: contiguous
  why: str = ""
  difference: float | None = None  # the largest to another system's output, if it was compared

  @property
  def bandwidth_share(self) -> float:
    """Returns the necessary bytes per second, as a share of the bytes per second of a copy."""
    assert self.seconds is not None, self.why
    return self.need.bytes / self.seconds / self.limits.copy_rate

  @property
  def flop_share(self) -> float:
    assert self.seconds is not None, self.why
    return self.need.flops / self.seconds / self.limits.matmul_rate

  def figures(self) -> dict[str, Any]:
    """Returns the point as JSON values."""
    result = dict(
      system=self.system, **dataclasses.asdict(self.shape), page=self.page, bytes=self.need.bytes,
      flops=self.need.flops, roofline_us=1e6 * self.need.seconds(self.limits),
    )  # fmt: skip
    if self.seconds is None:
      return result | dict(why=self.why)
    return result | dict(
      us=1e6 * self.seconds,
      bandwidth_share=self.bandwidth_share,
      flop_share=self.flop_share,
      difference=self.difference,
    )


def cached_bytes(platform: str) -> int:
  """Returns more bytes than a device can cache between calls: twice the L2 of an H100 or more."""
  return (128 << 20) if platform in ("gpu", "cuda", "rocm") else 0


def sets_of(shape: AttentionShape, page: int | None, minimum: int) -> tuple[list[dict], dict]:
  """Returns the arrays of layers with at least `minimum` bytes in all, and their shared inputs."""
  each = 2 * shape.batch * shape.kv_heads * shape.capacity * shape.width
  each *= jnp.dtype(shape.dtype).itemsize
  count = min(max(-(-minimum // max(each, 1)), 1), _MAX_SETS)
  check_fits((count + 1) * each, memory_limit())
  arguments = kernel_inputs.with_cache(shape, page)
  first = {name: arguments.pop(name) for name in _ARRAYS}
  others = [first | kernel_inputs.cache(shape, page, seed) for seed in range(1, count)]
  table = "page_table"  # all layers of a model share it
  return [first, *({n: x for n, x in one.items() if n != table} for one in others)], arguments


def measured(
  shape: AttentionShape,
  limits: DeviceLimits,
  name: Implementation,
  page: int | None = None,
  *,
  rounds: int = 5,
) -> SweepPoint:
  """Times an implementation over a cache; the outputs of a call are the queries of the next."""
  point = SweepPoint(shape, name, None, need(shape), limits, page)
  try:
    sets, shared = sets_of(shape, page, cached_bytes(limits.platform))
    q = shared.pop("q")
    if reason := why_not(name, dict(q=q, **sets[0], **shared)):
      return dataclasses.replace(point, why=reason)

    def call(q, arrays, shared):
      return frontier_attention(q, **arrays, **shared, implementation=name)[0]

    seconds = seconds_per_call(call, q, sets, shared, rounds=rounds)
  except Exception as error:  # noqa: BLE001 - compilers raise many errors, and the next shape may work
    return dataclasses.replace(point, why=short(error))
  return dataclasses.replace(point, seconds=seconds)


def short(error: Exception) -> str:
  lines = str(error).splitlines() or [type(error).__name__]
  return lines[0][:150]


def over_entries(points: Sequence[SweepPoint]) -> Latency | None:
  """Returns the latency model of points that differ in their entries; None: too few points."""
  ran = [(p.shape.entries, p.seconds) for p in points if p.seconds is not None]
  return fitted(*zip(*ran, strict=True)) if len(ran) >= 3 else None
