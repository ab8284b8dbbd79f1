"""The vocabulary of the library: what is decided (cache), what is being decided (frontier).

Dimensions: B batch, T frontier entries, S cache slots, K interval dimensions, R rows of logits,
L length, H query heads, G key/value heads, D head or model width, V vocabulary, N tree nodes,
C children of a node, P nodes of a path.
"""

import enum
from typing import NamedTuple

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mtjax.display.short import short_repr

FOREVER = jnp.iinfo(jnp.int32).max


class Exactness(enum.Enum):
  """The property of its target model that a decoder keeps; tests enforce the label."""

  LOSSLESS = "lossless"  # same distribution as the target at any temperature
  GREEDY_LOSSLESS = "greedy-lossless"  # same tokens as greedy decoding of the target
  APPROXIMATE = "approximate"  # changes the distribution; the method says how


class Frontier(struct.PyTreeNode):
  """The T entries that are being decided now, and who sees whom among them.

  Entry i sees entry j iff lo[k,j] <= stamp[k,i] < hi[k,j] for every k, and sees everything
  committed. No entry sees one with lo >= hi (padding, query streams).

  An entry is a token or, where `soft`, a vector in place of the token's row of the embedding table.
  Like such a row the vector is scaled by `embedding_scale` and gets learned positions. The token of
  such an entry means nothing; its keys and values are committed as usual. `vector` and `soft` are
  both arrays or both None; `mtjax.frontier.with_vectors` makes them.
  """

  token: Int[Array, "B T"]  # ids >= vocab_size index the model's extra embeddings
  position: Int[Array, "B T"]  # what rotary or learned positions see; entries may share one
  stamp: Int[Array, "B K T"]
  lo: Int[Array, "B K T"]
  hi: Int[Array, "B K T"]
  hidden: Int[Array, "B T"] | None = None  # one key that a query does not see; -1: none
  own: Bool[Array, "B T"] | None = None  # entries that always see themselves
  target: Int[Array, "B T"] | None = None  # position that a single-stream entry predicts; -1: none
  vector: Float[Array, "B T D"] | None = None  # vectors of soft entries; others mean nothing
  soft: Bool[Array, "B T"] | None = None  # entries that are vectors

  __repr__ = short_repr

  @property
  def batch(self) -> int:
    """The number of rows, B."""
    return self.token.shape[0]

  @property
  def size(self) -> int:
    """The number of entries per row, T."""
    return self.token.shape[1]


class LayerKV(NamedTuple):
  """Keys and values of one layer, heads before entries so that a head's entries are contiguous."""

  k: Float[Array, "B G T D"]
  v: Float[Array, "B G T D"]

  __repr__ = short_repr


class Output(NamedTuple):
  """The results of a forward pass."""

  logits: Float[Array, "B R V"]  # float32, for the entries that the caller chose
  features: Float[Array, "B F D"]  # last hidden states after the final norm: see Model.forward
  kv: tuple[LayerKV, ...]  # new keys and values of the frontier, not committed yet

  __repr__ = short_repr


class DraftScheme(enum.Enum):
  """The way in which the children of a node were chosen, in their order (`TokenTree.order`)."""

  DELTA = "delta"  # chosen without the target's randomness, by any rule; siblings are distinct
  WITH_REPLACEMENT = "with-replacement"  # independent samples from q; equal siblings stay
  WITHOUT_REPLACEMENT = "without-replacement"  # from q, then from q without the first, ...
  GREEDY_PLUS_ONE = "greedy-plus-one"  # the top n - 1 of q, then one sample from q without them
  PAIR = "pair"  # SpecHub: two children, one of which is the argmax of q


class TokenTree(struct.PyTreeNode):
  """Drafts as a tree. Node 0 is the root: the last emitted token, which the cache lacks.

  Parents stand before their children. Nodes that are not valid hold no draft: they have no valid
  child, and no result depends on them. Verifiers see one row, without B.
  """

  token: Int[Array, "*B N"]
  parent: Int[Array, "*B N"]  # -1 for the root
  depth: Int[Array, "*B N"]  # 0 for the root
  order: Int[Array, "*B N"]  # place among siblings, in the order they were chosen; < breadth
  valid: Bool[Array, "*B N"]  # the root always is
  height: int = struct.field(pytree_node=False)  # static: the largest depth that a node may have
  breadth: int = struct.field(pytree_node=False)  # static: the largest number of children

  __repr__ = short_repr

  @property
  def size(self) -> int:
    """The number of nodes of a batch's trees, N."""
    return self.token.shape[1]


class Draft(struct.PyTreeNode):
  """A tree and the scheme by which it was chosen, which a verifier needs to be exact."""

  tree: TokenTree
  scheme: DraftScheme = struct.field(pytree_node=False)
  # The probabilities that each node's first child was sampled from; None for DELTA.
  q: Float[Array, "*B N V"] | None = None
  # Nodes that may be accepted; None: all valid ones. The others are in the same pass because the
  # drafter learns from their logits, and have no child that may be accepted.
  offered: Bool[Array, "*B N"] | None = None
  # Number of the draft model's forward passes for this draft; None: there is no draft model.
  forwards: Int[Array, "*B"] | None = None
  # The estimated probability that each node is on the target's path; 1 at the root. None: unknown.
  # It may say how many nodes are verified, so it must not depend on a draft that was sampled.
  survival: Float[Array, "*B N"] | None = None

  __repr__ = short_repr


class Verdict(struct.PyTreeNode):
  """The result of a verifier: path[:count] is committed, then `token` is emitted."""

  path: Int[Array, "*B P"]  # nodes from the root on, P = height + 1; no meaning from count on
  count: Int[Array, "*B"]  # >= 1, because the root is accepted; count - 1 drafts were accepted
  token: Int[Array, "*B"]  # follows the last node of the path; not in the cache yet

  __repr__ = short_repr
