"""Lookahead decoding: it drafts n-grams that Jacobi iterations on guessed text produced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.draft.protocol import Context, ForAnyTarget, Round
from mtjax.sampling.logits import Rules, best_tokens
from mtjax.trees import merge
from mtjax.types import Draft, DraftScheme, TokenTree

# A row's n-grams by their first token, modulo S. Latest first; a first token of -1: no n-gram.
Pool = Int[Array, "B S G N"]


class JacobiState(struct.PyTreeNode):
  pool: Pool
  window: Int[Array, "B levels W"]  # guesses, oldest level first; the first of all is the root
  before: Int[Array, "B before"]  # the text's last tokens, those before the root; -1: none
  free: Int[Array, " B"]  # deeper nodes are not computed this round; -1: no round was proposed for


@dataclasses.dataclass(frozen=True)
class Jacobi(ForAnyTarget):
  """Lookahead decoding (2402.02057), a drafter; its W, N and G are `window`, `ngram`, `guesses`.

  Candidates: up to G n-grams of the pool that begin with the last token, as one tree. A pool keeps,
  for every first token, its G latest n-grams; one that comes again is the latest again. It is fed
  with the n-grams of the prompt, of the output, and of the window.

  The window: N - 1 levels of W columns of guesses. Level 0 is a chain from the root on, which is
  its column 0; the guess of level r in column c stands below that of level r - 1, c + r tokens
  after the root. The nodes of level N - 2 say what follows (their logits' maximum, whatever the
  request's temperature): each column with its new token is an n-gram. Then level 0 is dropped and
  the new tokens are the last level, which is a Jacobi iteration with a history. Window nodes are
  computed in the same pass and never offered, so a round is (N - 1)(W + G) entries at most, with
  the root.

  After a round that emitted k tokens, level r + 1 of column c + k - 1 becomes level r of column c:
  guesses keep their place in the text. Columns that come in from the right are those that went out
  on the left. (The reference code moves no column, so guesses drift when k > 1; tokens per forward
  are the same within 1 % on the bundled target.)

  `buckets`, S, bounds the pool: tokens that are equal modulo S share G places. Rows have pools of
  their own. Raises ValueError for a window, guesses or buckets below 1 and n-grams below 2.
  """

  window: int = 3
  ngram: int = 3
  guesses: int = 3
  buckets: int = 4096

  def __post_init__(self):
    for name, minimum in dict(window=1, ngram=2, guesses=1, buckets=1).items():
      if getattr(self, name) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {getattr(self, name)}")

  @property
  def height(self) -> int:
    return max(self.ngram - 1, self.window + self.ngram - 3)  # of candidates, of the window

  @property
  def breadth(self) -> int:
    return self.guesses + 2  # at the root: its column has a level below and a column beside it

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.DELTA

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> JacobiState:
    batch = prompt.shape[0]
    rows = jnp.arange(batch)[:, None]
    # Every column begins at another place of the prompt, and goes on as the prompt does.
    column, level = jnp.arange(self.window), jnp.arange(self.ngram - 1)[:, None]
    place = (column * length[:, None, None] // self.window + level) % length[:, None, None]
    last = length[:, None] - (self.ngram - 1) + jnp.arange(self.ngram - 1)
    pool = jnp.full((batch, self.buckets, self.guesses, self.ngram), -1, jnp.int32)
    ngrams = _ngrams(prompt, self.ngram)
    real = jnp.arange(ngrams.shape[1]) + self.ngram <= length[:, None]
    return JacobiState(
      pool=insert(pool, ngrams, real),
      window=prompt[rows[:, :, None], place],
      before=jnp.where(last >= 0, prompt[rows, jnp.maximum(last, 0)], -1),
      free=jnp.full((batch,), -1, jnp.int32),
    )

  def propose(
    self, params: PyTree, state: JacobiState, context: Context
  ) -> tuple[Draft, JacobiState]:
    root = context.last
    n_grams = state.pool[jnp.arange(root.shape[0]), root % self.buckets]
    is_match = n_grams[:, :, 0] == root[:, None]
    inside = jnp.broadcast_to(is_match[:, :, None], n_grams[:, :, 1:].shape)
    candidates = merge(root, jnp.where(inside, n_grams[:, :, 1:], 0), inside)
    tree = self._with_window(candidates, state.window)
    offered = jnp.broadcast_to(jnp.arange(tree.size) < candidates.size, tree.token.shape)
    free = context.request.limit - context.step
    return Draft(tree, DraftScheme.DELTA, offered=offered), state.replace(free=free)

  def update(self, state: JacobiState, round: Round) -> JacobiState:
    root, num_emitted = round.tree.token[:, 0], round.num_emitted[:, None]
    column = jnp.arange(self.window)
    last = jnp.array(self._nodes()[-1])
    new = best_tokens(round.logits[:, last], Rules())
    computed = (column + self.ngram - 2 <= state.free[:, None]) & (num_emitted > 0)
    levels = jnp.concatenate([state.window.at[:, 0, 0].set(root), new[:, None]], axis=1)

    # What the text has grown by: n-grams that end at the root or later.
    text = jnp.concatenate([state.before, root[:, None], round.token[:, : self.ngram]], axis=1)
    of_text = _ngrams(text, self.ngram)
    grown = (
      (jnp.arange(self.ngram + 1) <= num_emitted) & (num_emitted > 0) & (of_text[:, :, 0] >= 0)
    )

    moved = (column + jnp.maximum(num_emitted - 1, 0)) % self.window
    moved = jnp.take_along_axis(levels[:, 1:], moved[:, None], axis=2)
    ngrams = jnp.concatenate([levels.swapaxes(1, 2), of_text], axis=1)
    before = jnp.take_along_axis(text, num_emitted + jnp.arange(self.ngram - 1), axis=1)
    return JacobiState(
      pool=insert(state.pool, ngrams, jnp.concatenate([computed, grown], axis=1)),
      window=jnp.where(jnp.any(computed, axis=1)[:, None, None], moved, state.window),
      before=before,
      free=jnp.full_like(state.free, -1),
    )

  def _nodes(self) -> Int[np.ndarray, "levels W"]:
    """Returns the nodes of the window in the tree: the root, and those behind the candidates."""
    behind = self.guesses * (self.ngram - 1)
    nodes = behind + np.arange((self.ngram - 1) * self.window).reshape(-1, self.window)
    nodes[0, 0] = 0
    return nodes

  def _with_window(self, candidates: TokenTree, window: Int[Array, "B levels W"]) -> TokenTree:
    batch = window.shape[0]
    nodes = self._nodes()
    parent = np.concatenate([np.roll(nodes[:1], 1, axis=1), nodes[:-1]])
    level, column = np.indices(nodes.shape)
    # Siblings: the next column of level 0, then the next level; at the root after the candidates.
    order = np.where((level == 1), 1, 0) + np.where(parent == 0, self.guesses, 0)

    def add(name, values):
      flat = jnp.asarray(values).reshape(-1, nodes.size)[:, 1:]
      rows = jnp.broadcast_to(flat, (batch, nodes.size - 1)).astype(jnp.int32)
      return jnp.concatenate([getattr(candidates, name), rows], axis=1)

    return TokenTree(
      token=add("token", window),
      parent=add("parent", parent),
      depth=add("depth", level + column),
      order=add("order", order),
      valid=jnp.pad(candidates.valid, ((0, 0), (0, nodes.size - 1)), constant_values=True),
      height=self.height,
      breadth=self.breadth,
    )


def insert(pool: Pool, ngram: Int[Array, "B M N"], real: Bool[Array, "B M"]) -> Pool:
  """Adds the real n-grams, one after the other; the least recently seen of its place goes."""
  batch, buckets, guesses, _ = pool.shape
  rows, slot = jnp.arange(batch), jnp.arange(guesses)
  # Nothing is done for what stands behind the last real one of all rows.
  count = jnp.max(jnp.where(real, jnp.arange(1, real.shape[1] + 1), 0), initial=0)

  def put(index, pool):
    new = jax.lax.dynamic_index_in_dim(ngram, index, 1, keepdims=False)
    is_real = jax.lax.dynamic_index_in_dim(real, index, 1)
    bucket = new[:, 0] % buckets
    old = pool[rows, bucket]
    same = jnp.all(old == new[:, None], axis=2)
    gap = jnp.where(jnp.any(same, axis=1), jnp.argmax(same, axis=1), guesses - 1)[:, None]
    after = jnp.where((slot <= gap)[:, :, None], jnp.roll(old, 1, axis=1), old)
    after = after.at[:, 0].set(new)
    return pool.at[rows, bucket].set(jnp.where(is_real[:, :, None], after, old))

  return jax.lax.fori_loop(0, count, put, pool)


def _ngrams(text: Int[Array, "B L"], size: int) -> Int[Array, "B M N"]:
  """Returns every run of `size` tokens."""
  count = max(text.shape[1] - size + 1, 0)
  return jnp.stack([text[:, i : i + count] for i in range(size)], axis=2)
