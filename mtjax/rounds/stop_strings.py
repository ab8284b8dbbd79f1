"""Stop strings: a finite automaton over tokens inside an XLA program, and a scan outside of it."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int

from mtjax.arguments import texts
from mtjax.display.short import short_repr

# A row is read as symbols: the bytes of its text, and SPECIAL + id for a token without bytes.
SPECIAL = 256
_STAY = 256  # column of the automaton's table for symbols that no word holds

Word = tuple[int, ...]
Partial = Mapping[Word, int]  # the missing rest of each word that has begun -> where it began


@dataclasses.dataclass(frozen=True)
class StopWords:
  """Stop strings as words over symbols.

  A string that holds the spelling of a special token is two words: its bytes, because a model may
  write the spelling in ordinary tokens, and one with the token itself as a symbol. A special token
  that is not part of a word is skipped, because it does not show in the text.
  """

  words: tuple[Word, ...]

  @classmethod
  def of(
    cls, stops: str | bytes | Sequence[str | bytes], special: Mapping[str, int]
  ) -> "StopWords":
    """Returns the words of `stops`; `special` has the id of each special token by its spelling.

    Raises ValueError for an empty stop string.
    """
    words = [stop.encode() if isinstance(stop, str) else stop for stop in texts(stops)]
    if not words or not all(isinstance(word, bytes) and word for word in words):
      raise ValueError(f"a stop string must hold at least one character, got {stops!r}")
    ids = {spelling.encode(): index for spelling, index in special.items() if spelling}
    return cls(
      tuple(dict.fromkeys([*map(tuple, words), *(_with_ids(word, ids) for word in words)]))
    )

  def follow(self, partial: Partial, symbol: int, place: int) -> dict[Word, int]:
    """Returns the words that have begun once `symbol` is read at `place`; one that ended is ()."""
    after = dict(partial) if symbol >= SPECIAL else {}
    for rest, start in (*partial.items(), *((word, place) for word in self.words)):
      if rest[0] == symbol:
        after[rest[1:]] = min(start, after.get(rest[1:], start))
    return after


def _with_ids(text: bytes, ids: Mapping[bytes, int]) -> Word:
  """Returns `text` with a symbol in place of each spelling; the longest where several begin."""
  if not ids:
    return tuple(text)
  spellings = b"|".join(map(re.escape, sorted(ids, key=len, reverse=True)))
  word: list[int] = []
  for piece in re.split(b"(" + spellings + b")", text):
    word += [SPECIAL + ids[piece]] if piece in ids else piece
  return tuple(word)


class StopScan:
  """A reader of one row's symbols, which returns its text up to the first stop string.

  Text that may be the beginning of a stop string is held back until it is known not to be.
  """

  def __init__(self, stops: StopWords):
    self._stops = stops
    self._partial: dict[Word, int] = {}
    self._held = bytearray()  # the last bytes read
    self._read = 0  # bytes so far
    self._stopped = False

  def feed(self, symbols: Iterable[int]) -> bytes:
    """Reads symbols and returns the text that is certain now."""
    for symbol in symbols:
      if self._stopped:
        return b""
      self._partial = self._stops.follow(self._partial, symbol, self._read)
      if symbol < SPECIAL:
        self._held.append(symbol)
        self._read += 1
      if () in self._partial:
        out = self._release(self._partial[()])
        self._stopped = True
        self._held.clear()
        return out
    return self._release(min(self._partial.values(), default=self._read))

  def finish(self) -> bytes:
    """Returns the text that was held back, because no symbol follows."""
    return self._release(self._read)

  def _release(self, end: int) -> bytes:
    count = max(len(self._held) - (self._read - end), 0)
    out = bytes(self._held[:count])
    del self._held[:count]
    return out


class StopStrings(struct.PyTreeNode):
  """An automaton that finds stop strings (Aho-Corasick over symbols, one step per token).

  It finds a string no matter how the tokenizer cut it, because it reads each token's symbols. State
  0 is the start; a token during which a string ends leads to state -1. The last column is for ids
  above the vocabulary, which have no text.
  """

  step: Int[Array, "Q columns"]  # the next state by state and token

  __repr__ = short_repr

  def advance(self, state: Int[Array, " B"], token: Int[Array, " B"]) -> Int[Array, " B"]:
    """Returns the states after a token per row; -1 stays -1."""
    known = jnp.minimum(token, self.step.shape[1] - 1)
    return jnp.where(state < 0, state, self.step[jnp.maximum(state, 0), known])

  @classmethod
  def compile(
    cls,
    stops: str | bytes | Sequence[str | bytes],
    token_bytes: Sequence[bytes],
    special: Mapping[str, int] | None = None,
  ) -> "StopStrings":
    """Returns the automaton for `stops` over a vocabulary whose id i stands for token_bytes[i].

    `special` has the id of each special token by its spelling: a stop string that holds one is
    found where the model writes that token. O(states * V * longest token) once, on the host.
    Raises ValueError for an empty stop string.
    """
    by_symbol, column = _automaton(StopWords.of(stops, special or {}))
    longest = max(1, *map(len, token_bytes))
    padded = np.full((len(token_bytes) + 1, longest), _STAY, np.int32)
    for index, piece in enumerate(token_bytes):
      if piece:
        padded[index, : len(piece)] = np.frombuffer(piece, np.uint8)
      else:
        padded[index, 0] = column.get(SPECIAL + index, _STAY)
    state = np.broadcast_to(np.arange(len(by_symbol))[:, None], (len(by_symbol), len(padded)))
    for symbols in padded.T:
      state = np.where(state < 0, state, by_symbol[state, symbols])
    return cls(jnp.asarray(state, jnp.int32))


def _automaton(stops: StopWords) -> tuple[np.ndarray, dict[int, int]]:
  """Returns [states, columns] transitions, and the column of each symbol that a word holds.

  A state is a set of words that have begun. Column _STAY stays put, -1 accepts, and a byte that no
  word holds leads back to the start.
  """
  symbols = sorted({symbol for word in stops.words for symbol in word})
  special = [symbol for symbol in symbols if symbol >= SPECIAL]
  column = {symbol: symbol for symbol in symbols if symbol < SPECIAL}
  column |= {symbol: _STAY + 1 + place for place, symbol in enumerate(special)}
  index: dict[frozenset[Word], int] = {frozenset(): 0}
  rows = []
  for state in (waiting := [frozenset()]):
    row = np.zeros(_STAY + 1 + len(special), np.int32)
    row[_STAY] = index[state]
    for symbol in symbols:
      after = frozenset(stops.follow(dict.fromkeys(state, 0), symbol, 0))
      if () not in after and after not in index:
        index[after] = len(index)
        waiting.append(after)
      row[column[symbol]] = -1 if () in after else index[after]
    rows.append(row)
  return np.stack(rows), column
