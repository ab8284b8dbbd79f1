"""Programs that several processes begin together, though one may compile for longer."""

from collections.abc import Callable
from typing import Any

from mtjax.hosts.agreement import gather
from mtjax.hosts.spread import spans
from mtjax.hosts.who import count


def compiled(program: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
  """Returns a jitted function, compiled in every process before any of them runs it.

  Processes connect when they first run a program on their devices, and on CPUs that fails when one
  comes more than 30 s after another. The function is for arguments of these shapes and shardings;
  in a job of one process it is `program` itself.
  """
  if count() == 1:
    return program
  ready = program.lower(*args, **kwargs).compile()
  gather("")  # a barrier
  return ready


def compile_together(program: Any, *args: Any) -> None:
  """Compiles a jitted function in every process before any of them goes on.

  For the same reason as `compiled`, where the function is called as usual afterwards. Nothing
  happens for arguments that are in this process alone.
  """
  if count() > 1 and spans(args):
    program.lower(*args).compile()
    gather("")  # a barrier
