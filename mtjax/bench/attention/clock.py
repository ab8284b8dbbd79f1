"""How long a call takes on a device: calls in a row inside one compiled program.

What a call gives is what the next one takes, so that none is left out and none runs beside another.
Its arrays pass a barrier with that, so that nothing made from them alone is made once for all
calls; what is `shared` does not: layers of a model share it, and its compiler may too. With several
sets of arrays, taken in turn, a call does not find its own in a cache from the call before.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import jax
from jaxtyping import PyTree

_LEAST_SECONDS, _MOST = 0.05, 400  # of what is timed
_CALLS = 32  # at least, between two looks at the end of the loop


class DoesNotFit(Exception):
  """More memory than the device has."""


def memory_limit() -> int | None:
  """Bytes that programs may hold on the device; None: it does not say."""
  return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def check_fits(needed: float, limit: int | None) -> None:
  if limit is not None and needed > limit:
    raise DoesNotFit(f"needs {needed / 2**30:,.1f} GiB of {limit / 2**30:,.1f}")


def chained(call: Callable[[PyTree, PyTree, PyTree], PyTree], turns: int) -> Callable:
  """(count, state, sets, shared) -> state after count x turns x len(sets) calls.

  `turns` is known when it is compiled: only every so many calls is the host asked for the end.
  """

  def loop(count, state, sets, shared):
    def turn(state, _):
      for arrays in sets:
        state = call(*jax.lax.optimization_barrier((state, arrays)), shared)
      return state, None

    def several(_, state):
      return jax.lax.scan(turn, state, None, length=turns)[0]

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
  """Median over `rounds` of `state = call(state, arrays, shared)`, each set of arrays in turn.

  Raises DoesNotFit, before it runs where the compiler can tell.
  """
  turns = -(-_CALLS // len(sets))
  loop = chained(call, turns)

  def seconds(count):
    begin = time.perf_counter()
    jax.block_until_ready(program(count, state, list(sets), shared))
    return time.perf_counter() - begin

  try:
    program = jax.jit(loop).lower(1, state, list(sets), shared).compile()
    if (memory := program.memory_analysis()) is not None:
      held = memory.argument_size_in_bytes + memory.output_size_in_bytes
      check_fits(held + memory.temp_size_in_bytes, memory_limit())
    seconds(1)
    count = int(min(max(_LEAST_SECONDS / seconds(1), 1), _MOST))
    found = statistics.median(seconds(count) for _ in range(rounds))
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
      raise DoesNotFit(str(error).splitlines()[0][:150]) from error
    raise
  return found / (count * turns * len(sets))
