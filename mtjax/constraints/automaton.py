"""Deterministic automata over bytes, and over the tokens of a vocabulary."""

from collections.abc import Sequence

import numpy as np
from flax import struct
from jaxtyping import Bool, Int

from mtjax.display.short import short_repr
from mtjax.sampling.constraint import UNREACHABLE

# Largest number of entries of a table of states by classes: 256 MiB of int32.
MAX_ENTRIES = 2**26


class ByteDfa(struct.PyTreeNode):
  """A deterministic automaton over bytes; state 0 is the start, -1 refuses."""

  next: Int[np.ndarray, "S 256"]
  accepting: Bool[np.ndarray, " S"]

  __repr__ = short_repr


class TokenDfa(struct.PyTreeNode):
  """A deterministic automaton over the tokens of a vocabulary; state 0 is the start, -1 refuses.

  Tokens with the same transitions are one class; class 0 is that of the tokens that never may
  follow. Every state can be reached, and from every state an accepting one can be: a text that was
  never refused can always be completed. End tokens are not part of it: `mtjax.constraints.join`
  allows them in accepting states.
  """

  class_of_token: Int[np.ndarray, " V"]
  next: Int[np.ndarray, "S C"]
  accepting: Bool[np.ndarray, " S"]
  distance: Int[np.ndarray, " S"]  # smallest number of tokens to an accepting state

  __repr__ = short_repr

  @property
  def shortest(self) -> int:
    """The number of tokens of the shortest accepted text, without an end token."""
    return int(self.distance[0])

  def accepts_length(self, tokens: int) -> bool:
    """Returns whether a text of exactly so many tokens is accepted."""
    return tokens in self.lengths(tokens)

  def lengths(self, limit: int) -> list[int]:
    """Returns the numbers of tokens, up to `limit`, of the texts that are accepted."""
    states, found = np.arange(len(self.accepting)) == 0, []
    for length in range(limit + 1):
      if np.any(states & self.accepting):
        found.append(length)
      after = self.next[states]
      states = np.isin(np.arange(len(states)), after[after >= 0])
    return found

  def accepts(self, tokens: Sequence[int]) -> bool:
    """Returns whether the automaton accepts a whole text, given without its end token."""
    state = 0
    for token in tokens:
      state = self.next[state, self.class_of_token[token]]
      if state < 0:
        return False
    return bool(self.accepting[state])

  def for_model(self, vocab: int, ends: Sequence[int]) -> "TokenDfa":
    """Returns the automaton for a model of `vocab` tokens that ends its texts with `ends`.

    A model may have more tokens than its tokenizer; those are never allowed. It may also lack some,
    and its end tokens cannot stand within a text: the texts that need them are no longer accepted.
    Raises ValueError if no text is left.
    """
    known = self.class_of_token.size
    classes = np.pad(self.class_of_token, (0, max(vocab - known, 0)))[:vocab]
    classes = np.where(np.isin(np.arange(vocab), ends), 0, classes)
    lost = np.setdiff1d(self.class_of_token, classes)
    if not np.any(lost):
      return self.replace(class_of_token=classes)
    return trimmed(classes, self.next, self.accepting)


def compile_tokens(dfa: ByteDfa, token_bytes: Sequence[bytes]) -> TokenDfa:
  """Returns the automaton over a vocabulary whose id i stands for token_bytes[i].

  A text of tokens is accepted iff its bytes are, however they are cut. Tokens without bytes are
  never allowed. What a token does is a map from states to states, and tokens with the same
  beginning share the way to it: O(V * longest token) look-ups, and O(S) for each different map.

  Raises ValueError if no text of these tokens is accepted, and for tables beyond MAX_ENTRIES.
  """
  columns, byte_class = np.unique(dfa.next, axis=1, return_inverse=True)
  # The last row is that of state -1, so that a refused state stays refused.
  columns = np.pad(columns, ((0, 1), (0, 0)), constant_values=-1)
  size = len(dfa.accepting)
  refused, identity = np.full(size, -1, np.int32), np.arange(size, dtype=np.int32)
  maps = [refused, identity]
  index = {one.tobytes(): i for i, one in enumerate(maps)}
  after: dict[tuple[int, int], int] = {}

  def step(one: int, byte: int) -> int:
    new = columns[maps[one], byte].astype(np.int32)
    place = index.setdefault(new.tobytes(), len(maps))
    if place == len(maps):
      if (len(maps) + 1) * size > MAX_ENTRIES:
        raise ValueError(
          f"the constraint has {size} states, and over {len(maps)} kinds of tokens in them: that "
          f"exceeds tables of {MAX_ENTRIES} entries; make the pattern simpler or bound its length"
        )
      maps.append(new)
    after[one, byte] = place
    return place

  classes = byte_class.reshape(-1).tolist()
  class_of_token = np.zeros(len(token_bytes), np.int32)
  for token, piece in enumerate(token_bytes):
    one = 1 if piece else 0
    for byte in piece:
      known = after.get((one, classes[byte]))
      one = step(one, classes[byte]) if known is None else known
      if one == 0:
        break
    class_of_token[token] = one
  return trimmed(class_of_token, np.stack(maps, axis=1), dfa.accepting)


def trimmed(
  class_of_token: Int[np.ndarray, " V"],
  after: Int[np.ndarray, "S C"],
  accepting: Bool[np.ndarray, " S"],
) -> TokenDfa:
  """Returns the automaton without states that no text reaches or completes, and equal classes.

  Raises ValueError if it accepts no text.
  """
  used, class_of_token = np.unique(class_of_token, return_inverse=True)
  after = after[:, used]
  states = len(accepting)
  # State -1 has the last place.
  edges = np.unique(np.where(after < 0, states, after) + np.arange(states)[:, None] * (states + 1))
  source, target = np.divmod(edges, states + 1)
  inside = target < states
  source, target = source[inside], target[inside]
  reached = _distances(target, source, np.arange(states) == 0)
  distance = _distances(source, target, accepting)
  live = (reached < UNREACHABLE) & (distance < UNREACHABLE)
  if not live[0]:
    raise ValueError(
      "no text satisfies the constraint: the tokens of this vocabulary spell none that it accepts"
    )
  number = np.append(np.where(live, np.cumsum(live) - 1, -1), -1).astype(np.int32)
  after = number[after[live]]
  columns, again = np.unique(
    np.concatenate([np.full((len(after), 1), -1), after], axis=1), axis=1, return_inverse=True
  )
  # The columns are sorted, so the one that always refuses is the first.
  again = again.reshape(-1)[1:]
  return TokenDfa(
    class_of_token=again[class_of_token.reshape(-1)].astype(np.int32),
    next=columns.astype(np.int32),
    accepting=accepting[live],
    distance=distance[live].astype(np.int32),
  )


def _distances(
  source: Int[np.ndarray, " E"], target: Int[np.ndarray, " E"], goal: Bool[np.ndarray, " S"]
) -> Int[np.ndarray, " S"]:
  """Returns for each state the smallest number of edges, source to target, to a goal."""
  distance = np.where(goal, 0, UNREACHABLE).astype(np.int64)
  for steps in range(1, len(goal) + 1):
    new = source[(distance[target] == steps - 1) & (distance[source] == UNREACHABLE)]
    if not new.size:
      break
    distance[new] = steps
  return distance
