"""Drafts with errors, from which a model learns to edit: wrong, missing and surplus tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, Shaped

from mtjax.diffusion.moves import moved, sources
from mtjax.diffusion.noising.edit_labels import edit_labels
from mtjax.diffusion.noising.times import run_start
from mtjax.diffusion.rows import block_starts


class BlockWindows(NamedTuple):
  """The block that begins at each entry of packed rows, of `size` places, and its inverse.

  A window that begins inside a block means nothing; none of them is read by `back`.
  """

  index: Int[Array, "B L S"]
  inside: Bool[Array, "B L S"]  # false: the block is shorter, at the end of its document
  origin: Int[Array, "B L"]  # of each entry: its place in the flattened windows

  def read(self, values: Shaped[Array, "B L"], fill: int | bool) -> Shaped[Array, "BL S"]:
    """Returns the values of each window, and `fill` at places outside its block."""
    rows = jnp.arange(values.shape[0])[:, None, None]
    return jnp.where(self.inside, values[rows, self.index], fill).reshape(-1, self.index.shape[2])

  def back(self, values: Shaped[Array, "BL S"]) -> Shaped[Array, "B L"]:
    """Returns for each entry the value at its place in the window of its block."""
    return jnp.take_along_axis(values.reshape(len(self.origin), -1), self.origin, axis=1)


def block_windows(
  position: Int[Array, "B L"], document: Int[Array, "B L"], size: int
) -> BlockWindows:
  """Returns the blocks of `size` tokens of packed documents, each counted from its beginning."""
  position, document = jnp.asarray(position), jnp.asarray(document)
  index = jnp.broadcast_to(jnp.arange(position.shape[1]), position.shape)
  starts = block_starts(position, size)
  number, start = jnp.cumsum(starts, axis=1), run_start(starts)
  window = index[:, :, None] + jnp.arange(size)
  at = jnp.minimum(window, position.shape[1] - 1)
  rows = jnp.arange(position.shape[0])[:, None, None]
  same = (number[rows, at] == number[:, :, None]) & (document[rows, at] == document[:, :, None])
  # Padding may be far from the last beginning of a block.
  place = jnp.minimum(index - start, size - 1)
  return BlockWindows(at, same & (window < position.shape[1]), start * size + place)


def random_tokens(
  key: PRNGKeyArray, shape: tuple[int, ...], vocab_size: int, excluded: Sequence[int]
) -> Int[Array, "..."]:
  """Samples tokens uniformly from those of the vocabulary that are not excluded.

  Raises ValueError if there is no other.
  """
  ids = sorted({one for one in excluded if 0 <= one < vocab_size})
  if len(ids) == vocab_size:
    raise ValueError(f"all {vocab_size} tokens of the vocabulary are excluded")
  token = jax.random.randint(key, shape, 0, vocab_size - len(ids))
  for one in ids:
    token = token + (token >= one)
  return token


class MovedDraft(NamedTuple):
  """A draft whose tokens do not all stand where they stood."""

  token: Int[Array, "B L"]
  masked: Bool[Array, "B L"]  # the mask of a token; other masks came to the end of a block


def moved_draft(
  token: Int[Array, "B L"],
  masked: Bool[Array, "B L"],
  missing: Bool[Array, "B L"],
  surplus: Bool[Array, "B L"],
  other: Int[Array, "B L"],
  windows: BlockWindows,
  *,
  mask_id: int,
) -> MovedDraft:
  """Returns blocks without the tokens that are `missing`, and with one before each `surplus` one.

  That one is the `other` token of the place where it then stands. What follows moves, each block
  keeps its length, and masks fill its end or tokens beyond it are lost, as in
  `mtjax.diffusion.moves`.
  """
  inserted, deleted = (windows.read(each, False) for each in (surplus & ~missing, missing))
  source = sources(deleted, inserted)
  inside = windows.inside.reshape(inserted.shape)
  end = jnp.sum(jnp.where(inside & ~deleted, 1 + inserted, 0), axis=1, keepdims=True)
  new = (source < 0) & (jnp.arange(inserted.shape[1]) < end)
  out = windows.back(moved(windows.read(token, mask_id), source, mask_id))
  stays = windows.back(moved(windows.read(masked, False), source, False))
  return MovedDraft(jnp.where(windows.back(new), other, out), stays)


def block_edit_labels(
  draft: Int[Array, "B L"],
  target: Int[Array, "B L"],
  windows: BlockWindows,
  *,
  mask_id: int,
  delete_id: int,
  insert_id: int,
) -> Int[Array, "B L"]:
  """Returns `edit_labels` of each block of packed rows, and the mask where nothing is learned.

  Raises ValueError if two of the three ids are equal.
  """
  both = (windows.read(each, mask_id) for each in (draft, target))
  labels = edit_labels(*both, mask_id=mask_id, delete_id=delete_id, insert_id=insert_id)
  return windows.back(labels)
