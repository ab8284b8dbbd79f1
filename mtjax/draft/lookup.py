"""Prompt lookup: what followed the last few tokens when they stood in the text before."""

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from mtjax.types import Draft, DraftLaw, TokenTree


@struct.dataclass
class Text:
  """Prompt and output of each row."""

  token: Int[Array, "B C"]
  length: Int[Array, " B"]

  def append(self, token: Int[Array, "B P"], count: Int[Array, " B"]) -> "Text":
    source = jnp.arange(self.token.shape[1]) - self.length[:, None]
    moved = jnp.take_along_axis(token, jnp.clip(source, 0, token.shape[1] - 1), axis=1)
    new = (source >= 0) & (source < count[:, None])
    return Text(jnp.where(new, moved, self.token), self.length + count)


@dataclasses.dataclass(frozen=True)
class PromptLookup:
  """Copies `length` tokens from behind earlier places that end as the text ends now.

  A place is as good as the number of last tokens it repeats, at most `most` and at least `least`;
  the latest of equals comes first. The `branches` best places make one tree, common beginnings
  shared (apoorvumang/prompt-lookup-decoding, several branches as in 2312.12728). Nothing is
  learned and nothing runs: O(text x most) comparisons a round, in the graph.
  """

  length: int = 8
  branches: int = 1
  most: int = 4
  least: int = 1

  def __post_init__(self):
    for name in ("length", "branches", "least"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
    if self.most < self.least:
      raise ValueError(f"most ({self.most}) must be at least least ({self.least})")

  @property
  def height(self) -> int:
    return self.length

  @property
  def breadth(self) -> int:
    return self.branches

  @property
  def forwards(self) -> int:
    return 0

  def start(self, params, prompt, length, *, room):
    # The first token is emitted before the first round: it is not in this text yet.
    return Text(jnp.pad(prompt, ((0, 0), (0, room))), length)

  def propose(self, params, state, request, last, step):
    # What the rounds before emitted is there, but for the one token that the prefill did.
    text = state.append(last[:, None], (step == 1).astype(jnp.int32))
    place, found = self._places(text)
    offset = jnp.arange(self.length)
    source = place[:, :, None] + offset
    inside = found[:, :, None] & (source < text.length[:, None, None])
    rows = jnp.arange(place.shape[0])[:, None, None]
    token = text.token[rows, jnp.minimum(source, text.token.shape[1] - 1)]
    return Draft(_merge(last, token, inside), DraftLaw.DELTA), text

  def update(self, state, tree, verdict, token, taken):
    return state.append(token, taken)

  def _places(self, text: Text):
    """Starts of continuations [B, K], best first, and whether there are so many."""
    size = text.token.shape[1]
    start = jnp.arange(size)
    repeated = jnp.zeros(text.token.shape, jnp.int32)
    equal = jnp.ones(text.token.shape, bool)
    for back in range(1, self.most + 1):
      at_end = jnp.take_along_axis(text.token, jnp.maximum(text.length - back, 0)[:, None], axis=1)
      equal &= (jnp.roll(text.token, back, axis=1) == at_end) & (start >= back)
      repeated += equal
    score = jnp.where(start < text.length[:, None], repeated * size + start, -1)
    places = []
    for _ in range(self.branches):  # a few passes over a short row beat sorting it
      best = jnp.argmax(score, axis=1)
      places.append(
        (best, jnp.take_along_axis(repeated, best[:, None], axis=1)[:, 0], score.max(1))
      )
      score = jnp.where(start == best[:, None], -1, score)
    place, repeats, value = (jnp.stack(x, axis=1) for x in zip(*places, strict=True))
    return place, (repeats >= self.least) & (value >= 0)


def _merge(
  root: Int[Array, " B"], token: Int[Array, "B K L"], inside: Int[Array, "B K L"]
) -> TokenTree:
  """One tree of K branches: a beginning that an earlier branch has is that branch's."""
  batch, branches, length = token.shape
  # same[b, j, k, t]: branches j and k have their first t + 1 tokens in common.
  pairs = (token[:, :, None] == token[:, None, :]) & inside[:, :, None] & inside[:, None, :]
  same = jnp.cumprod(pairs, axis=3).astype(bool)
  first = jnp.argmax(same, axis=1)  # [B, K, L]; a branch of no token has nothing in common
  own = inside & (first == jnp.arange(branches)[:, None])
  node = 1 + first * length + jnp.arange(length)
  parent = jnp.concatenate([jnp.zeros_like(node[:, :, :1]), node[:, :, :-1]], axis=2)
  # Elder siblings: own nodes of earlier branches at the same depth with the same parent.
  elder = own[:, :, None] & (parent[:, :, None] == parent[:, None, :])
  before = jnp.arange(branches)[:, None] < jnp.arange(branches)
  order = jnp.sum(elder & before[:, :, None], axis=1)

  def nodes(first, rest):
    return jnp.concatenate([first[:, None], rest.reshape(batch, -1)], axis=1)

  zero = jnp.zeros((batch,), jnp.int32)
  depth = jnp.broadcast_to(1 + jnp.arange(length), token.shape)
  return TokenTree(
    token=nodes(root, token),
    parent=nodes(zero - 1, parent),
    depth=nodes(zero, depth),
    order=nodes(zero, order),
    valid=nodes(zero == 0, own),
    height=length,
    breadth=branches,
  )
