"""Where the blocks of a batch of canvases begin and end: after prompts, or around given targets."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mtjax.diffusion.plan import BlockPlan
from mtjax.rounds.size_buckets import bucket

# One row of bool per text: true at the tokens that are to be generated.
Targets = Sequence[Sequence[bool]] | Sequence[Bool[np.ndarray, " L"]]


@dataclasses.dataclass(frozen=True)
class Extents:
  """Positions of each row of a batch."""

  start: Int[np.ndarray, " B"]  # the first position that is generated
  first: Int[np.ndarray, " B"]  # where the first block begins: at `start`, or before it
  end: Int[np.ndarray, " B"]  # the number of entries of the canvas


def extents_of(
  texts: Sequence[Sequence[int]],
  lengths: Sequence[int],
  block_length: int,
  is_target: Targets | None,
  mask_id: int,
) -> Extents:
  """Returns the extents of canvases: `lengths` masks after each text, or its targets alone.

  `block_length`: that of a block-causal network, whose blocks begin at its multiples; 0: of another
  one. Raises ValueError for targets that do not fit the texts, a row without a target, and a mask
  among the tokens that are given.
  """
  sizes = np.array([len(text) for text in texts])
  if is_target is None:
    start, stop = sizes, sizes + np.asarray(lengths)
  else:
    start, stop = _targets(texts, is_target, mask_id)
  if not block_length:
    return Extents(start, start, stop if is_target is None else sizes)
  end = -(-stop // block_length) * block_length
  # No entry of a later block is seen by a target.
  end = end if is_target is None else np.minimum(end, sizes)
  return Extents(start, start // block_length * block_length, end)


def plans_of_blanks(
  is_target: Targets, *, block_length: int, largest: int, steps: int, length: int, is_fixed: bool
) -> list[BlockPlan]:
  """Returns one plan per row, of blocks that its targets may need.

  `steps` passes are planned for `length` tokens of a text. So many are planned for a block as its
  positions, or the row's targets if they are fewer, have by that ratio, rounded up: that is the
  most for a block, and does not become less where few of the targets lie in it. Where
  `block_length` is not fixed, blocks have no more positions than there are from the first target of
  a row to its last, rounded up to one of `rounds.size_buckets`, but at most `largest`; with 0 they
  have so many.
  """
  places = [np.flatnonzero(row) for row in is_target]
  width = block_length
  if not is_fixed:
    span = max((int(at[-1] - at[0]) + 1 for at in places if at.size), default=1)
    whole = bucket(min(span, largest), maximum=largest)
    width = min(block_length or whole, whole)
  passes = [-(-min(at.size, width) * steps // length) for at in places]
  return [BlockPlan(width, width, max(each, 1)) for each in passes]


def check_targets(texts: Sequence[Sequence[int]], is_target: Targets) -> None:
  """Raises ValueError for no text, and unless there is one flag per token of each text."""
  if not len(texts):
    raise ValueError("there is no text: give at least one")
  if len(is_target) != len(texts):
    raise ValueError(f"is_target has {len(is_target)} rows for {len(texts)} texts: give one each")
  for row, (text, target) in enumerate(zip(texts, is_target, strict=True)):
    if len(target) != len(text):
      raise ValueError(
        f"row {row} has {len(text)} tokens and {len(target)} flags of is_target: give one per token"
      )


def _targets(
  texts: Sequence[Sequence[int]], is_target: Targets, mask_id: int
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
  """Returns the first target of each row, and the position after its last."""
  check_targets(texts, is_target)
  starts, stops = [], []
  for row, (text, target) in enumerate(zip(texts, is_target, strict=True)):
    places = np.flatnonzero(target)
    if not places.size:
      raise ValueError(f"row {row} has no target: at least one flag of is_target must be true")
    if any(token == mask_id and not one for token, one in zip(text, target, strict=True)):
      raise ValueError(f"row {row} holds the mask, {mask_id}, as a given token: make it a target")
    starts.append(places[0])
    stops.append(places[-1] + 1)
  return np.array(starts), np.array(stops)
