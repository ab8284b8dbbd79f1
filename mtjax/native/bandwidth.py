"""How fast this machine reads memory: the limit that decoding on a CPU is measured against."""

import time
from collections.abc import Callable

from mtjax.native import build
from mtjax.native.memory import huge_memory


def measure_bandwidth(bytes: int, threads: int | None = None, seconds: float = 0.2) -> float:
  """GB/s of reading `bytes` on huge pages from start to end, over and over; the best pass.

  The size decides which cache answers: take that of the weights read per token. `threads`: None
  takes what the matmuls use (`build.threads()`). Best, not mean: other work on the machine can
  only slow a pass down. Where the native code does not work, one thread of numpy reads, which is
  a lower bound.
  """
  if bytes < 1 << 16:
    raise ValueError(f"bytes is {bytes}; below 64 KiB the call itself is what is measured")
  data = huge_memory(bytes)
  data[:] = 1  # an untouched page is not memory yet
  if build.unavailable():
    return bytes / _best(lambda: data.max(), seconds) / 1e9
  library, before = build.library(), build.threads()
  build.set_threads(before if threads is None else threads)
  try:
    return bytes / _best(lambda: library.mtjax_read(data.ctypes.data, bytes), seconds) / 1e9
  finally:
    build.set_threads(before)


def _best(read: Callable[[], object], seconds: float) -> float:
  best, end = float("inf"), time.perf_counter() + seconds
  while time.perf_counter() < end:
    began = time.perf_counter()
    read()
    best = min(best, time.perf_counter() - began)
  return best
