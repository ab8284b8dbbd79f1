"""Drafts from a store on the host: what followed the last tokens, here and in other requests."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.draft import host
from mtjax.draft.protocol import Context, ForAnyTarget, Round
from mtjax.draft.trie_branches import Branches
from mtjax.types import Draft, DraftScheme, TokenTree


@runtime_checkable
class Store(Protocol):
  """A store that retrieves drafts; see `mtjax.draft.model_free.trie_store.TrieStore`."""

  def begin(self, prompts: list[list[int]], *, late: bool = False) -> list[int]: ...

  def extend(self, request: int, tokens: list[int]) -> None: ...

  def finish(self, request: int) -> None: ...

  def draft(self, request: int, size: int, depth: int) -> Branches: ...


class TrieState(struct.PyTreeNode):
  store: Int[Array, ""]
  request: Int[Array, " B"]  # the store's numbers of the rows
  tree: TokenTree  # of the next round, except its root
  survival: Float[Array, "B N"]  # of the tree's nodes
  active: Bool[Array, " B"]
  left: Int[Array, " B"]  # number of tokens that may still be emitted


@dataclasses.dataclass(frozen=True)
class Trie(ForAnyTarget):
  """A tree of `size` nodes, the root among them, that a store retrieves (2312.12728).

  Params are the store's handle (`TrieStore(...).handle`): one program serves every store, and rows
  of one batch, of several and of streams that take turns may share one. Each row is a request of
  its own. The host is called once per round, when the round's tokens are known; what they teach is
  there for every row that asks after. Rows without a match decode plainly.

  A store remembers what was emitted. With verifiers other than `greedy` and `sample_match`,
  requests that share a store must not share a seed: drafts must not depend on the randomness that
  they are verified with.
  """

  size: int = 8
  depth: int = 12

  def __post_init__(self):
    if self.size < 2:
      raise ValueError(f"size must be at least 2 (the root and a draft), got {self.size}")
    if self.depth < 1:
      raise ValueError(f"depth must be at least 1, got {self.depth}")

  @property
  def height(self) -> int:
    return min(self.depth, self.size - 1)

  @property
  def breadth(self) -> int:
    return self.size - 1

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.DELTA

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> TrieState:
    return self._started(_begin, params, prompt, length, max_new)

  def start_late(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> TrieState:
    """Returns what `start` does, before the store has read the prompts: it will when it is used."""
    return self._started(_begin_late, params, prompt, length, max_new)

  def _started(self, begin, params, prompt, length, max_new: int) -> TrieState:
    batch = prompt.shape[0]
    ids = jax.ShapeDtypeStruct((batch,), jnp.int32)
    zero = jnp.zeros((batch,), jnp.int32)
    return TrieState(
      store=params,
      request=host.call(begin, ids, params, prompt, length),
      tree=self._tree(jnp.zeros((4, batch, self.size), jnp.int32)),
      survival=jnp.zeros((batch, self.size), jnp.float32),
      active=zero == 0,
      left=zero + max_new,
    )

  def propose(self, params: PyTree, state: TrieState, context: Context) -> tuple[Draft, TrieState]:
    # The store lacks the token that the prefill emitted. Rows that ended with it are told too.
    first = (context.step == 1).astype(jnp.int32)
    tree, survival = jax.lax.cond(
      jnp.any((first == 1) & context.active),
      lambda: self._ask(state, context.last[:, None], first, ~context.active),
      lambda: (state.tree, state.survival),
    )
    tree = tree.replace(token=tree.token.at[:, 0].set(context.last))
    left = context.request.limit - context.step
    known = survival if self.estimates_survival else None
    return Draft(tree, DraftScheme.DELTA, survival=known), state.replace(
      tree=tree, survival=survival, active=context.active, left=left.astype(jnp.int32)
    )

  def update(self, state: TrieState, round: Round) -> TrieState:
    # An end token shows only in the next round; after the last round the store forgets by itself.
    ended = (
      ~state.active | (round.num_emitted >= state.left) | (round.num_emitted < round.verdict.count)
    )
    tree, survival = self._ask(state, round.token, round.num_emitted, ended)
    return state.replace(tree=tree, survival=survival, left=state.left - round.num_emitted)

  def _ask(
    self, state: TrieState, token, num_emitted, ended
  ) -> tuple[TokenTree, Float[Array, "B N"]]:
    rows = token.shape[0], self.size
    shapes = jax.ShapeDtypeStruct((4, *rows), jnp.int32), jax.ShapeDtypeStruct(rows, jnp.float32)

    def on_host(store: Store, *arrays):
      return _round(store, *arrays, self.size, self.height)

    nodes, survival = host.call(
      on_host, shapes, state.store, state.request, token, num_emitted, ended
    )
    return self._tree(nodes), survival

  def _tree(self, nodes: Int[Array, "4 B N"]) -> TokenTree:
    token, parent, depth, order = nodes
    is_root = jnp.arange(self.size) == 0
    return TokenTree(
      token=token,
      parent=jnp.where(is_root, -1, parent),
      depth=depth,
      order=order,
      valid=is_root | (depth > 0),
      height=self.height,
      breadth=self.breadth,
    )


class RatedTrie(Trie):
  """A `Trie` whose store estimates how probable its drafts are, as `SuffixStore` does."""

  @property
  def estimates_survival(self) -> bool:
    return True


def _begin(store: Store, prompt, length):
  return np.array(store.begin(_prompts(prompt, length)), np.int32)


def _begin_late(store: Store, prompt, length):
  return np.array(store.begin(_prompts(prompt, length), late=True), np.int32)


def _prompts(prompt, length) -> list[list[int]]:
  return [row[:count].tolist() for row, count in zip(prompt, length, strict=True)]


def _round(store: Store, requests, token, num_emitted, ended, size: int, depth: int):
  """Teaches the store what was emitted, then returns the drafts of rows that go on."""
  out = np.zeros((4, len(requests), size), np.int32)
  survival = np.zeros((len(requests), size), np.float32)
  rows = list(
    zip(requests.tolist(), token.tolist(), num_emitted.tolist(), ended.tolist(), strict=True)
  )
  for request, tokens, count, _ in rows:
    if count:
      store.extend(request, tokens[:count])
  for row, (request, _, _, over) in enumerate(rows):
    if over:
      store.finish(request)
      continue
    branches = store.draft(request, size - 1, depth)
    fields = (branches.token, branches.parent, branches.depth, branches.order)
    for array, values in zip(out, fields, strict=True):
      array[row, : len(values)] = values
    survival[row, : len(branches.survival)] = branches.survival
  return out, survival
