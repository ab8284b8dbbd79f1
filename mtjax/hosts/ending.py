"""The end of a job: when one process is lost, the others end in a bounded time and say what to do.

JAX ends a process by abort() when another one misses its heartbeats, or when not all come at the
start, after a page of inner words. There is no supported way to be told before (a callback that is
given to its client ends in std::bad_cast), so the message is printed by a handler of SIGABRT. On
CPUs the operation that waits for the lost process raises an error at once, long before that.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import traceback
from collections.abc import Generator

import jax

from mtjax.hosts.who import count

LOST_EXIT = 43

_GO_ON = (
  "Start the same command again on every process: a training run continues from its last checkpoint"
)
# How errors of JAX's runtime begin, and what stands in those of a lost process.
_STATUS = re.compile("[A-Z_]+: ")
_SIGNS = (
  *("Gloo", "NCCL", "remote process exited", "Connection closed", "Connection reset"),
  *("UNAVAILABLE", "heartbeat", "ABORTED"),
)
# What is said when JAX aborts, or "" where an abort is none of ours.
_message = ""
_handler = None  # ctypes frees a function that nobody holds


@contextlib.contextmanager
def starting(wait: int) -> Generator[None]:
  """Explains an abort within the block, which lasts `wait` seconds at most."""
  _explain(
    f"the processes of this job did not all meet within {wait} s. Start them all, with the same "
    "address and count and with indices of their own from 0, and let them reach that address"
  )
  try:
    yield
  finally:
    _explain("")


def running(heartbeat: int) -> None:
  """Explains an abort from now on: nearly always it means that another process is gone."""
  _explain(
    "this process was aborted, as JAX does when another process of this job has ended, or gave no "
    f"sign of life for {heartbeat} s; the lines above may name it. {_GO_ON}"
  )


@contextlib.contextmanager
def ends_together() -> Generator[None]:
  """Ends this process at once if an error leaves the block, in a job of several processes.

  A process that waited for the others in its last moments, as JAX does, would keep them waiting for
  it, and would then say that they were lost. Exit codes: 2 for mistakes and a full disk
  (ValueError, OSError, ImportError), `LOST_EXIT` where another process was lost, else 1. Exits
  pass.
  """
  try:
    yield
  except Exception as error:  # noqa: BLE001 - whatever it is, the others must not wait for it
    if count() == 1:
      raise
    if _is_loss(error):
      reason = " ".join(str(error).split())[:200]
      text = f"another process of this job has ended or does not answer ({reason}). {_GO_ON}"
      code = LOST_EXIT
    elif isinstance(error, ValueError | OSError | ImportError):
      text, code = str(error), 2
    else:
      traceback.print_exc()
      text, code = "this process ends with the error above, and the job with it", 1
    print(f"mtjax: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _is_loss(error: Exception) -> bool:
  text = str(error)
  # JAX raises some errors of its runtime as plain ValueErrors, which begin with their status.
  of_runtime = isinstance(error, jax.errors.JaxRuntimeError) or (
    isinstance(error, ValueError) and _STATUS.match(text) is not None
  )
  return of_runtime and any(sign in text for sign in _SIGNS)


def _explain(message: str) -> None:
  global _message, _handler
  _message = message
  if _handler is None:
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_aborted)
    # Python's own signal handlers run between instructions of the main thread, which never come.
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)


def _aborted(number: int) -> None:
  if _message:
    with contextlib.suppress(OSError):  # nobody may read any more
      os.write(2, f"mtjax: {_message}\n".encode())
    os._exit(LOST_EXIT)
  # The handler is left, and abort() then ends the process as it always does.
