"""Which of the job's processes this one is."""

import sys

import jax


def count() -> int:
  """Returns the number of processes of the job; 1 unless `mtjax.hosts.meet` was called."""
  return jax.process_count()


def is_first() -> bool:
  """Returns whether this is process 0, which alone writes text files, logs and results."""
  return jax.process_index() == 0


def say(text: str) -> None:
  """Prints a line on standard error, in process 0 alone."""
  if is_first():
    print(text, file=sys.stderr, flush=True)
