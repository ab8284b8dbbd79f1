"""The limits of a device: measured bandwidth and matmul rate, and the times that they allow."""

import dataclasses

import jax
import jax.numpy as jnp

from mtjax.bench.attention.clock import memory_limit, seconds_per_call
from mtjax.bench.attention.kernels import AttentionShape, visible_share


@dataclasses.dataclass(frozen=True)
class DeviceLimits:
  device: str
  platform: str
  memory: int | None  # bytes; None: the device does not say
  copy_rate: float  # bytes/s read and written by a copy
  matmul_rate: float  # FLOP/s of a large matmul in bfloat16

  @property
  def ridge(self) -> float:
    """Returns the FLOPs per byte above which a computation is bound by FLOPs."""
    return self.matmul_rate / self.copy_rate


def measure(copied: int, side: int, rounds: int = 5) -> DeviceLimits:
  """Times a copy of an array of `copied` bytes and a product of bfloat16 matrices, side x side."""
  device = jax.devices()[0]
  words = jnp.zeros((copied // 4,), jnp.int32)
  # The traffic of a copy, by another operation: a plain copy could be left out.
  copy = seconds_per_call(lambda x, _, __: x + 1, words, rounds=rounds)
  a, b = (jax.random.normal(jax.random.key(n), (side, side), jnp.bfloat16) for n in range(2))
  b = (b.astype(jnp.float32) * side**-0.5).astype(b.dtype)
  matmul = seconds_per_call(lambda a, b, _: a @ b, a, [b], rounds=rounds)
  rates = 2 * words.nbytes / copy, 2 * side**3 / matmul
  return DeviceLimits(device.device_kind, device.platform, memory_limit(), *rates)


@dataclasses.dataclass(frozen=True)
class Need:
  """The minimum work of any implementation: bytes that are read or written, and FLOPs."""

  bytes: int
  flops: float

  def seconds(self, limits: DeviceLimits) -> float:
    """Returns the least time by the roofline: that of the limit which is reached first."""
    return max(self.bytes / limits.copy_rate, self.flops / limits.matmul_rate)


def need(shape: AttentionShape) -> Need:
  """Returns the minimum work of one call.

  Forward it moves keys and values of filled slots and fresh entries, queries and outputs, and
  computes two matmuls over the pairs that see each other. The gradient reads all of that again and
  the output's gradient, and writes those of queries, keys and values: three times the bytes. It has
  five more matmuls: 3.5 times the FLOPs. Labels, tables and log-sum-exps are less than a hundredth
  of that and are not counted.
  """
  s = shape
  size = jnp.dtype(s.dtype).itemsize
  keys = 2 * s.kv_heads * (s.filled + s.entries)
  pairs = s.entries * s.filled + visible_share(s) * s.entries**2
  once = s.batch * s.width * size * (keys + 2 * s.entries * s.heads)
  flops = 4.0 * s.batch * s.heads * s.width * pairs
  return Need(3 * once, 3.5 * flops) if s.gradient else Need(once, flops)


def knee(shape: AttentionShape, limits: DeviceLimits) -> float:
  """Returns the number of entries above which attention over a long cache is bound by FLOPs.

  It is ridge x bytes of a number x key heads / (2 x query heads).
  """
  return limits.ridge * jnp.dtype(shape.dtype).itemsize * shape.kv_heads / (2 * shape.heads)
