"""Measures the time of a call on a device, from successive calls inside one compiled program.

Each call takes the result of the one before, so that none is left out and none runs beside another.
Its arrays pass a barrier with that result, so that nothing that depends on them alone is computed
once for all calls. `shared` does not pass it: layers of a model share it, so a compiler may compute
with it once. With several sets of arrays, used in turn, a call does not find its arrays in a cache.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Generator, Sequence

import jax
from jaxtyping import PyTree

from mtjax.planning.latency import is_out_of_memory

_MIN_SECONDS, _MAX_LOOPS = 0.05, 400  # limits of a timed run
_CALLS = 32  # minimum number of calls between two tests for the end of the loop


class DoesNotFit(Exception):
  """An error: a program needs more memory than the device has."""


def memory_limit() -> int | None:
  """Returns the bytes that programs may use on the device; None: it does not say."""
  return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def check_fits(needed: float, limit: int | None) -> None:
  if limit is not None and needed > limit:
    raise DoesNotFit(f"needs {needed / 2**30:,.1f} GiB of {limit / 2**30:,.1f}")


@contextlib.contextmanager
def refusing_what_does_not_fit() -> Generator[None]:
  """Raises DoesNotFit, with its first line, for an error that says that memory is exhausted."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if is_out_of_memory(error):
      raise DoesNotFit(str(error).splitlines()[0][:150]) from error
    raise


def chained(call: Callable[[PyTree, PyTree, PyTree], PyTree], turns: int) -> Callable:
  """Returns (count, state, sets, shared) -> state after count x turns x len(sets) calls.

  `turns` is static, so that the host is queried for the end only after that many rounds.
  """

  def loop(count, state, sets, shared):
    def over_sets(state, _):
      for arrays in sets:
        state = call(*jax.lax.optimization_barrier((state, arrays)), shared)
      return state, None

    def several(_, state):
      return jax.lax.scan(over_sets, state, None, length=turns)[0]

    return jax.lax.fori_loop(0, count, several, state)

  return loop


def seconds_per_call(
  call: Callable[[PyTree, PyTree, PyTree], PyTree],
  state: PyTree,
  sets: Sequence[PyTree] = ((),),
  shared: PyTree = (),
  *,
  rounds: int = 5,
) -> float:
  """Returns the median seconds per `call(state, arrays, shared)` over `rounds`, sets in turn.

  Raises DoesNotFit, if the compiler knows it before anything runs.
  """
  turns = -(-_CALLS // len(sets))
  loop = chained(call, turns)

  def seconds(count):
    begin = time.perf_counter()
    jax.block_until_ready(program(count, state, list(sets), shared))
    return time.perf_counter() - begin

  with refusing_what_does_not_fit():
    program = jax.jit(loop).lower(1, state, list(sets), shared).compile()
    if (memory := program.memory_analysis()) is not None:
      held = memory.argument_size_in_bytes + memory.output_size_in_bytes
      check_fits(held + memory.temp_size_in_bytes, memory_limit())
    seconds(1)
    count = int(min(max(_MIN_SECONDS / seconds(1), 1), _MAX_LOOPS))
    median = statistics.median(seconds(count) for _ in range(rounds))
  return median / (count * turns * len(sets))
