"""Checksums of arrays that one process holds, and of arrays that are spread over several.

A CRC needs the bytes in order, so it is made where a process holds the whole array. For an array
that is spread over processes, each adds up its own part: the sum modulo 2^64 of

    (bits of element i + 1) * (odd number that depends on i)

over all elements, which does not depend on who holds which. Any change of one element changes it,
because an odd factor has an inverse modulo 2^64.
"""

import functools
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mtjax import hosts

_MODULUS = 1 << 64
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ROWS = 1 << 20  # number of elements that are added up at a time


def checksums(leaves: Mapping[str, Any]) -> dict[str, dict[str, int | None]]:
  """Returns {"crc": ...} of each array or, with "crc" None, {"sum": ...} of one that is spread.

  Every process of a job must call it, with the same arrays.
  """
  spread = {name: leaf for name, leaf in leaves.items() if not _is_whole(leaf)}
  sums = _sums(spread)
  return {
    name: dict(crc=None, sum=sums[name]) if name in spread else dict(crc=_crc(leaf))
    for name, leaf in leaves.items()
  }


def differs(leaves: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the name of an array that is not what `checksums` described, or "".

  The array may be spread otherwise than it was. Every process must call it, and gets the same.
  """
  summed = {name: leaf for name, leaf in leaves.items() if stored[name].get("sum") is not None}
  sums = _sums(summed)
  wrong = [name for name in summed if sums[name] != stored[name]["sum"]]
  for name, leaf in leaves.items():
    crc = stored[name]["crc"]
    if crc is not None:
      whole = leaf if _is_whole(leaf) else multihost_utils.process_allgather(leaf, tiled=True)
      if _crc(whole) != crc:
        wrong.append(name)
  return next(filter(None, hosts.gather(wrong[0] if wrong else "")), "")


def _is_whole(leaf: Any) -> bool:
  """Returns whether this process, and so every process, holds all of the array."""
  return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _crc(leaf: Any) -> int:
  return zlib.crc32(np.ascontiguousarray(np.asarray(leaf)).view(np.uint8).data)


def _sums(leaves: Mapping[str, Any]) -> dict[str, int]:
  own = {name: _own_sum(leaf) for name, leaf in leaves.items()}
  if not own or all(_is_whole(leaf) for leaf in leaves.values()):
    return own
  # An array that every process holds was added up by each of them.
  first = {name for name, leaf in leaves.items() if _is_whole(leaf)}
  parts = [json.loads(text) for text in hosts.gather(json.dumps(own))]
  return {
    name: own[name] if name in first else sum(part[name] for part in parts) % _MODULUS
    for name in own
  }


def _own_sum(leaf: Any) -> int:
  """Returns the sum over the elements that this process holds, each copy of them once."""
  if _is_whole(leaf):
    return _sum(np.asarray(leaf), np.shape(leaf), (0,) * np.ndim(leaf))
  total = 0
  for shard in leaf.addressable_shards:
    if shard.replica_id == 0:
      starts = tuple(part.start or 0 for part in shard.index)
      total += _sum(np.asarray(shard.data), leaf.shape, starts)
  return total % _MODULUS


def _sum(part: np.ndarray, shape: tuple[int, ...], starts: tuple[int, ...]) -> int:
  """Returns the sum over `part`, which begins at `starts` in an array of that shape."""
  if not part.ndim:
    part, shape, starts = part.reshape(1), (1,), (0,)
  bits = np.ascontiguousarray(part).reshape(len(part), -1).view(f"u{part.dtype.itemsize}")
  # The flat index of an element is a sum of one number per axis.
  strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
  axes = [
    np.arange(start, start + size, dtype=np.uint64) * np.uint64(stride)
    for start, size, stride in zip(starts, part.shape, strides, strict=True)
  ]
  within = functools.reduce(lambda x, y: x[..., None] + y, axes[1:], np.zeros((), np.uint64))
  within, total = within.reshape(-1), 0
  rows = max(1, _ROWS // max(1, within.size))
  for first in range(0, len(part), rows):
    index = axes[0][first : first + rows, None] + within
    values = bits[first : first + rows].astype(np.uint64) + np.uint64(1)
    total += int(np.sum(values * ((index * _ODD) | np.uint64(1)), dtype=np.uint64))
  return total % _MODULUS
