"""The speed at which this machine reads memory, which limits decoding on a CPU."""

import time
from collections.abc import Callable

from mtjax.native import build
from mtjax.native.memory import huge_memory


def measure_bandwidth(bytes: int, threads: int | None = None, seconds: float = 0.2) -> float:
  """Returns the GB/s of the best of several passes that read `bytes` on huge pages.

  The size decides which cache is measured: use that of the weights read per token. `threads`: None
  means the number that the matmuls use (`build.threads()`). It is the best pass, not the mean,
  because other work on the machine can only slow a pass down. If the native code does not work,
  one thread of numpy reads, which gives a lower bound.
  """
  if bytes < 1 << 16:
    raise ValueError(
      f"bytes must be at least 64 KiB, got {bytes}: below, the time is that of the call itself"
    )
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
