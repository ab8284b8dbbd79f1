"""Which of the job's processes this one is."""

import sys

import jax


def count() -> int:
  """Returns the number of processes of the job; 1 unless `mtjax.hosts.meet` was called.

  It starts no device where there is no job.
  """
  return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
  """Returns whether this is process 0, which alone writes text files, logs and results."""
  return count() == 1 or jax.process_index() == 0


def say(text: str) -> None:
  """Prints a line on standard error, in process 0 alone."""
  if is_first():
    print(text, file=sys.stderr, flush=True)
