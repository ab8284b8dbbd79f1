"""What a job of several processes prints and writes: once, by process 0."""

import contextlib
import os
from collections.abc import Generator

_is_other = False  # whether this is a process other than the first; known without importing JAX


def writes_here() -> bool:
  """Returns false within `silent`, else true."""
  return not _is_other


@contextlib.contextmanager
def silent() -> Generator[None]:
  """Within the block this process prints nothing, and `mtjax.cli.running` writes no file."""
  global _is_other
  _is_other = True
  try:
    with (
      open(os.devnull, "w", encoding="utf-8") as nothing,
      contextlib.redirect_stdout(nothing),
      contextlib.redirect_stderr(nothing),
    ):
      yield
  finally:
    _is_other = False
