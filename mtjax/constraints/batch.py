"""The constraints of a batch, one per row, as the tables of one program."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mtjax.constraints.automaton import TokenDfa
from mtjax.rounds.size_buckets import bucket
from mtjax.sampling.constraint import UNREACHABLE, Automata

# One for all rows, or one per row; None: no constraint.
Constraint = TokenDfa | Sequence[TokenDfa | None] | None


def rows_of(constraint: Constraint, batch: int) -> list[TokenDfa | None]:
  """Returns the constraint of each row. Raises ValueError for another number than of rows."""
  if constraint is None or isinstance(constraint, TokenDfa):
    return [constraint] * batch
  rows = list(constraint)
  for row, one in enumerate(rows):
    if not (one is None or isinstance(one, TokenDfa)):
      raise ValueError(
        f"the constraint of row {row} is {one!r}: make one with mtjax.constraints.regex or "
        "json_schema"
      )
  if len(rows) != batch:
    raise ValueError(f"constraint has {len(rows)} values for a batch of {batch} rows")
  return rows


def join(
  constraint: Constraint,
  limits: Sequence[int],
  vocab: int,
  eos: Sequence[int],
  never: Sequence[int] = (),
) -> Automata | None:
  """Returns the tables for rows of at most `limits` tokens, or None if no row has a constraint.

  An end token is allowed exactly in accepting states, and after it only end tokens. `never`: tokens
  that no text may have, such as a mask. Numbers of automata, states and classes are rounded up, so
  that other constraints of similar size mostly cost no compilation.

  Raises ValueError for another number of constraints than rows, no end token, a limit below the
  shortest accepted text, and a vocabulary without the tokens that the constraint needs.
  """
  rows = rows_of(constraint, len(limits))
  if all(one is None for one in rows):
    return None
  if not eos:
    raise ValueError("a constrained text ends with an end token, and there is none: give eos")
  different: dict[int, TokenDfa] = {}
  for row, (one, limit) in enumerate(zip(rows, limits, strict=True)):
    if one is None:
      continue
    if id(one) not in different:
      different[id(one)] = one.for_model(vocab, (*eos, *never))
    shortest = different[id(one)].shortest
    if shortest > limit:
      raise ValueError(
        f"row {row} may have {limit} tokens, and the shortest text that its constraint accepts has "
        f"{shortest}: give it more tokens (max_tokens, or the length of its canvas)"
      )
  return _stacked(rows, different, vocab, eos)


def join_exact(
  constraint: Constraint, lengths: Sequence[int], vocab: int, never: Sequence[int] = ()
) -> Automata | None:
  """Returns the tables for texts of exactly so many tokens, without end tokens; None: no row.

  For text that stands between others, such as a blank. Raises ValueError for another number of
  constraints than rows, a length that no accepted text has, and as `join` does.
  """
  rows = rows_of(constraint, len(lengths))
  different: dict[int, TokenDfa] = {}
  for row, (one, length) in enumerate(zip(rows, lengths, strict=True)):
    if one is None:
      continue
    if id(one) not in different:
      different[id(one)] = one.for_model(vocab, never)
    known = different[id(one)]
    if not known.accepts_length(length):
      raise ValueError(
        f"blank {row + 1} has {length} tokens, and its constraint accepts no text of exactly so "
        f"many: {_lengths_in_words(known, length)}"
      )
  return _stacked(rows, different, vocab, ()) if different else None


def _lengths_in_words(dfa: TokenDfa, length: int) -> str:
  near = dfa.lengths(max(2 * length, dfa.shortest, 16))
  shown = ", ".join(map(str, near[:8])) + ", ..." * (len(near) > 8)
  return f"those it accepts have {shown} tokens"


def _stacked(
  rows: Sequence[TokenDfa | None], different: dict[int, TokenDfa], vocab: int, eos: Sequence[int]
) -> Automata:
  """Returns the tables of rows. `different`: the automata, made for this model, by id."""
  parts = [_with_ends(one, np.isin(np.arange(vocab), eos)) for one in different.values()]
  place = {key: index for index, key in enumerate(different)}
  which = [len(parts) if one is None else place[id(one)] for one in rows]
  if len(parts) in which:
    parts.append((np.zeros(vocab, np.int32), np.zeros((1, 1), np.int32), np.zeros(1, np.int32)))
  states, classes = (bucket(max(part[1].shape[axis] for part in parts)) for axis in (0, 1))
  # Further automata than there are, up to a power of two, are the last one again.
  parts += parts[-1:] * ((1 << (len(parts) - 1).bit_length()) - len(parts))

  def stacked(field, sizes, fill):
    arrays = [part[field] for part in parts]
    widths = [[(0, size - n) for n, size in zip(x.shape, sizes, strict=True)] for x in arrays]
    return jnp.asarray(
      np.stack([np.pad(x, w, constant_values=fill) for x, w in zip(arrays, widths, strict=True)]),
      jnp.int32,
    )

  return Automata(
    which=jnp.asarray(which, jnp.int32),
    class_of_token=stacked(0, (vocab,), 0),
    next=stacked(1, (states, classes), -1),
    distance=stacked(2, (states,), UNREACHABLE),
  )


def _with_ends(dfa: TokenDfa, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns classes, transitions and distances with a class of end tokens, and a last state."""
  states, classes = dfa.next.shape
  after = np.pad(dfa.next, ((0, 1), (0, 1)), constant_values=-1)
  after[:-1, -1] = np.where(dfa.accepting, states, -1)
  after[-1, -1] = states
  return np.where(ends, classes, dfa.class_of_token), after, np.append(dfa.distance, 0)
