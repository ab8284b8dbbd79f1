"""Filling with constraints on blanks: what an entry may become, given what is decided so far.

Each blank, a run of adjacent targets, has an automaton of its own. Before an entry is sampled, its
logits are restricted to the tokens with which its blank can still be completed, whatever the other
open entries become (`mtjax.constraints.canvas`), and renormalised. A method that samples from its
conditionals, one by one or drafted and verified, then has exactly the product of these restricted
conditionals in its order: what constrained decoding is in any order. (As there, it is not the
model's distribution over whole texts given that they are accepted.) Drafts are restricted too, but
each on its own: a draft that fits no completion is refused.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax.anysubset.canvas import Canvas
from mtjax.constraints import TokenDfa
from mtjax.constraints.batch import join, join_exact
from mtjax.constraints.canvas import allowed_on_canvas
from mtjax.display.short import short_repr
from mtjax.rounds.size_buckets import bucket
from mtjax.sampling.constraint import Automata

# For all blanks; or one per row, which is one for all its blanks or a list with one for each.
BlankConstraint = TokenDfa | Sequence["TokenDfa | Sequence[TokenDfa | None] | None"] | None


class FillConstraint(struct.PyTreeNode):
  """The automata of the blanks of a batch: N per row, of at most P entries each."""

  automata: Automata  # its `which` is not read: a row may have several
  which: Int[Array, "B N"]  # the automaton of each blank
  index: Int[Array, "B N P"]  # canvas indices of a blank's entries, from left to right
  inside: Bool[Array, "B N P"]  # false past a blank's last entry
  blank: Int[Array, "B L"]  # number of the blank that an entry belongs to; 0 elsewhere
  place: Int[Array, "B L"]  # place of an entry in its blank

  __repr__ = short_repr

  def allowed(
    self, token: Int[Array, "B L"], known: Bool[Array, "B L"], index: Int[Array, "B Q"]
  ) -> Bool[Array, "B Q V"]:
    """Returns the tokens with which a blank can be completed, at the canvas indices `index`.

    `known`: entries whose token is decided. Where nothing can be (a refused draft stands before it,
    or an entry is past the last target), all tokens are allowed: nobody reads what is sampled.
    """
    batch, blanks, size = self.index.shape
    flat = self.index.reshape(batch, -1)

    def of_blanks(values):
      return jnp.take_along_axis(values, flat, axis=1).reshape(batch * blanks, size)

    inside = self.inside.reshape(batch * blanks, size)
    place = jnp.take_along_axis(self.place, index, axis=1)
    number = jnp.take_along_axis(self.blank, index, axis=1)
    automata = self.automata.replace(which=self.which.reshape(-1))
    allowed = allowed_on_canvas(
      automata,
      of_blanks(token),
      inside & ~of_blanks(known),
      inside,
      jnp.repeat(place, blanks, axis=0),
    )
    allowed = allowed.reshape(batch, blanks, *allowed.shape[1:])
    allowed = jnp.take_along_axis(allowed, number[:, None, :, None], axis=1)[:, 0]
    return allowed | ~jnp.any(allowed, axis=-1, keepdims=True)


def restrict(
  constraint: FillConstraint | None,
  logits: Float[Array, "B Q V"],
  token: Int[Array, "B L"],
  known: Bool[Array, "B L"],
  index: Int[Array, "B Q"],
) -> Float[Array, "B Q V"]:
  """Returns logits with -inf at tokens with which a blank cannot be completed, by entry."""
  if constraint is None:
    return logits
  return jnp.where(constraint.allowed(token, known, index), logits, -jnp.inf)


def restrict_along(
  constraint: FillConstraint | None,
  logits: Float[Array, "B N V"],
  token: Int[Array, "B L"],
  known: Bool[Array, "B L"],
  index: Int[Array, "B N"],
  draft: Int[Array, "B K"],
) -> Float[Array, "B N V"]:
  """Returns the logits of entries in a row, N = K + 1 of them, each given the drafts before it.

  Draft k is the token of the entry index[b, k]; an index past the canvas is of no entry.
  """
  if constraint is None:
    return logits
  rows, out = jnp.arange(len(token))[:, None], []
  for place in range(logits.shape[1]):
    here = slice(place, place + 1)
    real = jnp.minimum(index[:, here], token.shape[1] - 1)
    out.append(restrict(constraint, logits[:, here], token, known, real))
    if place < draft.shape[1]:
      token = token.at[rows, index[:, here]].set(draft[:, here], mode="drop")
      known = known.at[rows, index[:, here]].set(True, mode="drop")
  return jnp.concatenate(out, axis=1)


def blanks_of(is_target: Bool[np.ndarray, " L"]) -> list[tuple[int, int]]:
  """Returns (start, stop) of the runs of adjacent targets, from left to right."""
  edge = np.flatnonzero(np.diff(np.pad(is_target.astype(int), 1)))
  return list(zip(edge[::2].tolist(), edge[1::2].tolist(), strict=True))


def constraint_of(
  constraint: BlankConstraint,
  canvas: Canvas,
  size: int,
  vocab: int,
  eos: Sequence[int],
  never: Sequence[int] = (),
) -> FillConstraint | None:
  """Returns the constraint of a canvas that is padded to `size` entries; None: there is none.

  With `eos`, the text of a blank may be shorter: end tokens then follow it to the blank's end.
  Without, it has as many tokens as the blank. `never`: tokens that no text may have.

  Raises ValueError for another number of constraints than rows or than blanks of a row, and as
  `mtjax.constraints.batch` does.
  """
  is_target = np.asarray(canvas.is_target)
  spans = [blanks_of(row) for row in is_target]
  each = _each(constraint, [len(row) for row in spans])
  if each is None:
    return None
  flat = [one for row in each for one in row]
  lengths = [stop - start for row in spans for start, stop in row]
  if eos:
    automata = join(flat, lengths, vocab, eos, never)
  else:
    automata = join_exact(flat, lengths, vocab, never)
  if automata is None:
    return None
  batch, count = len(spans), max(map(len, spans))
  places = bucket(max(lengths))
  index = np.zeros((batch, count, places), np.int32)
  inside = np.zeros(index.shape, bool)
  blank, place = (np.zeros((batch, size), np.int32) for _ in range(2))
  which = np.zeros((batch, count), np.int32)
  chosen = iter(np.asarray(automata.which).tolist())
  for row, of_row in enumerate(spans):
    for number, (start, stop) in enumerate(of_row):
      which[row, number] = next(chosen)
      index[row, number, : stop - start] = np.arange(start, stop)
      inside[row, number, : stop - start] = True
      blank[row, start:stop], place[row, start:stop] = number, np.arange(stop - start)
  tables = automata.replace(which=jnp.zeros(batch, jnp.int32))
  return FillConstraint(tables, *map(jnp.asarray, (which, index, inside, blank, place)))


def _each(constraint: BlankConstraint, counts: Sequence[int]) -> list[list[TokenDfa | None]] | None:
  """Returns the constraint of every blank of every row."""
  if constraint is None:
    return None
  if isinstance(constraint, TokenDfa):
    return [[constraint] * count for count in counts]
  if len(constraint) != len(counts):
    raise ValueError(f"constraint has {len(constraint)} values for a batch of {len(counts)} rows")
  out = []
  for row, (one, count) in enumerate(zip(constraint, counts, strict=True)):
    of_row = [one] * count if one is None or isinstance(one, TokenDfa) else list(one)
    if len(of_row) != count:
      raise ValueError(
        f"the constraint of row {row} has {len(of_row)} values, and the row has {count} blanks"
      )
    out.append(of_row)
  return out
