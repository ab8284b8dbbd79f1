"""What processes tell each other: that they run the same thing, and that something failed."""

import contextlib
import json
from collections.abc import Generator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mtjax.hosts.who import count

_BLOCK = 4096  # texts are sent in whole blocks of bytes: other sizes would compile anew


def gather(text: str) -> list[str]:
  """Returns the texts of all processes, by their index. Every process must call it."""
  if count() == 1:
    return [text]
  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray([data.size], np.int32))[:, 0]
  padded = np.zeros(-(-max(int(sizes.max()), 1) // _BLOCK) * _BLOCK, np.uint8)
  padded[: data.size] = data
  rows = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def of_first(value: Any) -> Any:
  """Returns the JSON value that process 0 has. Every process must call it."""
  return json.loads(gather(json.dumps(value))[0])


def check_equal(what: str, values: Mapping[str, Any]) -> None:
  """Raises ValueError in every process, with what differs, unless all have the same JSON values.

  Every process must call it. `what` names the values, as in "config".
  """
  if count() == 1:
    return
  texts = gather(json.dumps(values, sort_keys=True, default=dict))
  first = json.loads(texts[0])
  for index, text in enumerate(texts):
    if shown := differences(json.loads(text), first, "in process 0"):
      raise ValueError(
        f"process {index} has another {what} than process 0: {shown}. "
        "Start the same command, with the same files and versions, everywhere"
      )


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
  """Returns the values of an array that may be spread over processes, which all must call it."""
  if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
    return np.asarray(array)
  return multihost_utils.process_allgather(array, tiled=True)


@contextlib.contextmanager
def together(doing: str) -> Generator[None]:
  """Raises on every process if the block raised on one; a block of one process is left alone.

  The block must not wait for other processes. A ValueError, OSError or ImportError of this process
  is raised as it is, and one of another process as a ValueError that names it and `doing`.
  """
  error: Exception | None = None
  try:
    yield
  except (ValueError, OSError, ImportError) as own:
    error = own
  texts = gather("" if error is None else str(error) or type(error).__name__)
  if error is not None:
    raise error
  for index, text in enumerate(texts):
    if text:
      raise ValueError(f"process {index} failed while {doing}: {text}")


def check_whole_mesh(mesh: Mesh) -> None:
  """Raises ValueError for a mesh without some devices of a job of several processes.

  A process without devices of the mesh would have nothing to do, and one with some of its devices
  alone is nearly always a mistake.
  """
  total = len(jax.devices())
  if count() > 1 and mesh.size != total:
    shape = ", ".join(f"{name}: {size}" for name, size in mesh.shape.items())
    raise ValueError(
      f"the mesh ({shape}) has {mesh.size} of the {total} devices of {count()} processes: the "
      f"product of its sizes must be {total}"
    )


def differences(theirs: Any, ours: Any, where: str) -> str:
  """Returns up to five differences of JSON values in words, "a.b is 1 there, 2 WHERE"; else ""."""
  there, here = dict(_flat(theirs)), dict(_flat(ours))
  names = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
  return "; ".join(
    f"{name} is {there.get(name)!r} there, {here.get(name)!r} {where}" for name in names[:5]
  )


def _flat(value: Any, prefix: str = ""):
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from _flat(inner, f"{prefix}.{name}" if prefix else name)
  else:
    yield prefix, value
