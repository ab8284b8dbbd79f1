"""Stop strings inside one XLA program: a finite automaton over tokens."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int

from mtjax.arguments import texts


@struct.dataclass
class StopStrings:
  """Where a row is in its stop strings (Aho-Corasick over bytes, one step a token).

  A string is found however the tokenizer cut it: the automaton reads each token's bytes. State 0
  is the start; a token during which a string ends leads to state -1.
  """

  step: Int[Array, "Q V"]

  def advance(self, state: Int[Array, " B"], token: Int[Array, " B"]) -> Int[Array, " B"]:
    known = jnp.minimum(token, self.step.shape[1] - 1)
    return jnp.where(state < 0, state, self.step[jnp.maximum(state, 0), known])

  @classmethod
  def compile(
    cls, stops: str | bytes | Sequence[str | bytes], token_bytes: Sequence[bytes]
  ) -> "StopStrings":
    """The automaton for `stops` over a vocabulary whose id i stands for token_bytes[i].

    O(states * V * longest token) once, on the host. Raises ValueError for an empty stop string.
    """
    words = [stop.encode() if isinstance(stop, str) else stop for stop in texts(stops)]
    if not words or not all(isinstance(word, bytes) and word for word in words):
      raise ValueError(f"a stop string must hold at least one character, got {stops!r}")
    by_byte = _aho_corasick(words)
    longest = max(map(len, token_bytes))
    padded = np.full((len(token_bytes), longest), 256, np.int32)
    for index, piece in enumerate(token_bytes):
      padded[index, : len(piece)] = np.frombuffer(piece, np.uint8)
    state = np.broadcast_to(np.arange(len(by_byte))[:, None], (len(by_byte), len(padded)))
    for column in padded.T:
      state = np.where(state < 0, state, by_byte[state, column])
    return cls(jnp.asarray(state, jnp.int32))


def _aho_corasick(words: list[bytes]) -> np.ndarray:
  """[states, 257] transitions by byte; byte 256 stays put; -1 accepts."""
  prefixes = sorted({word[:end] for word in words for end in range(len(word))}, key=len)
  index = {prefix: state for state, prefix in enumerate(prefixes)}
  table = np.zeros((len(prefixes), 257), np.int32)
  for prefix, state in index.items():
    table[state, 256] = state
    for byte in range(256):
      text = prefix + bytes([byte])
      if any(text.endswith(word) for word in words):
        table[state, byte] = -1
      else:
        suffix = next(text[i:] for i in range(len(text) + 1) if text[i:] in index)
        table[state, byte] = index[suffix]
  return table
