"""What a model that edits is trained on: how to get from a draft to its target (LLaDA2.2)."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def edit_labels(
  draft: Int[Array, "B L"],
  target: Int[Array, "B L"],
  *,
  mask_id: int,
  delete_id: int,
  insert_id: int,
) -> Int[Array, "B L"]:
  """Returns what each position of a draft has to say, so that repeated edits reach the target.

  Draft tokens that are matched by a longest common subsequence are anchors. Between two anchors
  draft tokens become target tokens one by one; surplus ones get DELETE; and if target tokens are
  missing, the anchor after them gets INSERT in place of itself, one per round. Other anchors keep
  their token. After the last anchor all tokens get DELETE, and masks the target tokens that are
  left, one by one; more masks than that stay masks, of which nothing is learned.

  A mask matches nothing, so between anchors it is a token like others: what it becomes is the label
  of ordinary denoising. Both have the block's length. Labels applied again and again (`moves`)
  reach the target: of 4 positions, every draft does in at most 5 rounds.

  Raises ValueError if two of the three ids are equal.
  """
  if len({mask_id, delete_id, insert_id}) < 3:
    raise ValueError(
      f"mask_id, delete_id and insert_id must differ: got {mask_id}, {delete_id} and {insert_id}"
    )
  one = functools.partial(_labels, mask_id=mask_id, delete_id=delete_id, insert_id=insert_id)
  return jax.vmap(one)(draft, target)


def matches(draft: Int[Array, " L"], target: Int[Array, " M"]) -> Int[Array, " L"]:
  """Returns the place in the target that each draft token is matched with; -1: with none.

  They are those of a longest common subsequence, the one that matches as far left as it can.
  """
  equal = draft[:, None] == target[None, :]
  left = _common_lengths(equal)
  rows, columns = equal.shape

  def step(place, _):
    i, j = place
    inside = (i < rows) & (j < columns)
    here, there = jnp.minimum(i, rows - 1), jnp.minimum(j, columns - 1)
    # To match equal tokens is never worse than to skip one of them.
    match = inside & equal[here, there]
    skips_draft = inside & ~match & (left[i + 1, j] >= left[i, j + 1])
    skips_target = inside & ~match & ~skips_draft
    return (i + (match | skips_draft), j + (match | skips_target)), (match, here, there)

  start = (jnp.int32(0), jnp.int32(0))
  _, (match, i, j) = jax.lax.scan(step, start, length=rows + columns)
  return jnp.full(rows, -1).at[jnp.where(match, i, rows)].set(j, mode="drop")


def _common_lengths(equal: Bool[Array, "L M"]) -> Int[Array, "L+1 M+1"]:
  """Returns the length of the longest common subsequence of draft[i:] and target[j:]."""

  def row(below, here):
    one_more = jnp.where(here, below[1:] + 1, below[:-1])
    best = jnp.append(jnp.maximum(one_more, below[:-1]), 0)
    new = jax.lax.cummax(best, axis=0, reverse=True)
    return new, new

  none = jnp.zeros(equal.shape[1] + 1, jnp.int32)
  _, rows = jax.lax.scan(row, none, equal, reverse=True)
  return jnp.concatenate([rows, none[None]])


def _labels(draft, target, *, mask_id: int, delete_id: int, insert_id: int):
  size, length = draft.shape[0], target.shape[0]
  matched = matches(draft, jnp.where(target == mask_id, -1, target))
  place, anchor = jnp.arange(size), matched >= 0
  # Of the last anchor before each place, and of the first one at or after it.
  before = _previous(jnp.where(anchor, place, -1))
  before_target = _previous(jnp.where(anchor, matched, -1))
  next_ = jax.lax.cummin(jnp.where(anchor, place, size), axis=0, reverse=True)
  next_target = jax.lax.cummin(jnp.where(anchor, matched, length), axis=0, reverse=True)
  surplus = (next_ - before) - (next_target - before_target)  # of draft tokens; below 0: missing
  rank, missing = place - before - 1, next_target - before_target - 1
  aligned = target[jnp.clip(before_target + 1 + rank, 0, length - 1)]
  inside = jnp.where(rank < missing, aligned, delete_id)
  kept = jnp.where(surplus < 0, insert_id, draft)
  # After the last anchor.
  masks = draft == mask_id
  tail = next_ == size
  number = jnp.cumsum(masks & tail) - 1
  rest = jnp.where(
    number < missing, target[jnp.clip(before_target + 1 + number, 0, length - 1)], mask_id
  )
  last = jnp.where(masks, rest, delete_id)
  return jnp.where(anchor, kept, jnp.where(tail, last, inside))


def _previous(marked: Int[Array, " L"]) -> Int[Array, " L"]:
  """Returns the largest value before each place; -1: there is none."""
  upto = jax.lax.cummax(marked, axis=0)
  return jnp.concatenate([jnp.full(1, -1), upto[:-1]])
