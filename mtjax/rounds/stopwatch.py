"""The time that a program ran, without the time that JAX took to compile it."""

import contextlib
import time
from collections.abc import Generator

import jax

_listening: list[list[tuple[float, float]]] = []


def _listen(event: str, duration_secs: float, **_) -> None:
  if _listening and event.startswith("/jax/core/compile/"):
    now = time.perf_counter()
    for intervals in _listening:
      intervals.append((now - duration_secs, now))


jax.monitoring.register_event_duration_secs_listener(_listen)


class Stopwatch:
  """Adds up the time of blocks of work, and apart from it tracing, lowering and compiling."""

  def __init__(self):
    self._total = 0.0
    self._compiling: list[tuple[float, float]] = []

  @contextlib.contextmanager
  def running(self) -> Generator[None]:
    """Adds the time of the block under `with`."""
    _listening.append(self._compiling)
    begin = time.perf_counter()
    try:
      yield
    finally:
      self._total += time.perf_counter() - begin
      _listening[:] = [other for other in _listening if other is not self._compiling]

  @property
  def compile_seconds(self) -> float:
    """Time of tracing, lowering and compilation."""
    total = reached = 0.0
    for begin, end in sorted(self._compiling):  # they may overlap: each moment counts once
      total += max(0.0, end - max(begin, reached))
      reached = max(reached, end)
    return total

  @property
  def seconds(self) -> float:
    """Time of the blocks without compilation, above 0."""
    return max(self._total - self.compile_seconds, 1e-9)
