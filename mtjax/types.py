"""The vocabulary of the library: what is decided (cache), what is being decided (frontier).

Dimensions: B batch, T frontier entries, S cache slots, K interval dimensions, R rows asked for,
L length, H query heads, G key/value heads, D head or model width, V vocabulary.
"""

import enum
from typing import NamedTuple

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

FOREVER = jnp.iinfo(jnp.int32).max


class Exactness(enum.Enum):
  """What a decoder keeps of its target model; tests enforce the label."""

  LOSSLESS = "lossless"  # same law as the target at any temperature
  GREEDY_LOSSLESS = "greedy-lossless"  # same tokens as greedy decoding of the target
  APPROXIMATE = "approximate"  # changes the law; the method says how


@struct.dataclass
class Frontier:
  """The T entries being decided now, and who sees whom among them.

  Entry i sees entry j iff lo[k,j] <= stamp[k,i] < hi[k,j] for every k, and sees everything
  committed. An entry with lo >= hi is never a key (padding, query streams).
  """

  token: Int[Array, "B T"]  # ids >= vocab_size index the model's extra embeddings
  position: Int[Array, "B T"]  # what rotary or learned positions see; entries may share one
  stamp: Int[Array, "B K T"]
  lo: Int[Array, "B K T"]
  hi: Int[Array, "B K T"]
  hidden: Int[Array, "B T"] | None = None  # one key that a query does not see; -1: none
  own: Bool[Array, "B T"] | None = None  # entries that see themselves whatever the intervals say

  @property
  def batch(self) -> int:
    return self.token.shape[0]

  @property
  def size(self) -> int:
    return self.token.shape[1]


class LayerKV(NamedTuple):
  """Keys and values of one layer, heads before entries so that a head's entries are contiguous."""

  k: Float[Array, "B G T D"]
  v: Float[Array, "B G T D"]


class Output(NamedTuple):
  """What a forward pass returns."""

  logits: Float[Array, "B R V"]  # float32, for the rows asked for
  features: Float[Array, "B T D"]  # last hidden states, after the final norm
  kv: tuple[LayerKV, ...]  # fresh keys and values of the frontier, not committed yet
