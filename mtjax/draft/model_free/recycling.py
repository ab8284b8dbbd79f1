"""Token recycling: the target's top successors of a token are drafted when the token returns."""

import dataclasses
import functools
import heapq

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.draft.protocol import Context, ForAnyTarget, Round
from mtjax.trees import Topology, encodings
from mtjax.trees.siblings import top_k_siblings
from mtjax.types import Draft, DraftScheme

Matrix = Int[Array, "V K"]  # row t: last known successors of token t, best first; -1: none

# How often the first, second, ... recycled successor is the target's: what templates are
# grown from. Measured on the bundled target, greedy, over five prompt sets.
_RATES = (0.38, 0.09, 0.046, 0.030, 0.023, 0.020, 0.017, 0.012)


@dataclasses.dataclass(frozen=True)
class Recycling(ForAnyTarget):
  """A tree of the `candidates` most probable successors that the target last gave each token.

  Token Recycling (2408.08696): a matrix [V, K] of ids. The children of a node are the entries of
  its token's row, in a shape that is fixed: `tree`, or `template(tree)` for a number. After a
  round, every node that was computed, accepted or not, replaces the row of its token by the
  top K tokens of its logits. `candidates`, `tree` = 8, 80 are the paper's sizes; a machine
  that computes little beside reading its weights gains by them, a small one by 8 to 16 nodes.

  One matrix serves all rows of a batch, so they learn from each other. Of nodes of one round with
  the same token the last counts: of the highest row, and in it of the highest node. Before the
  first round the matrix holds the prompts' own bigrams, the latest first (logits of the prompt
  are not there). It begins anew with every generation; nothing is kept between two.

  Drafts of a row depend on the other rows, its distribution does not. Its text does not either
  under "sample_match"; under "delta" it is another text of the same distribution.

  Raises ValueError for sizes below 1, a tree that needs more than `candidates` successors, and
  more candidates than tokens.
  """

  vocab_size: int
  tree: Topology | int = 12
  candidates: int = 8

  def __post_init__(self):
    if not 1 <= self.candidates <= self.vocab_size:
      raise ValueError(
        f"candidates must be between 1 and the vocabulary's {self.vocab_size} tokens, got "
        f"{self.candidates}"
      )
    if not isinstance(self.tree, Topology) and self.tree < 1:
      raise ValueError(f"a tree needs at least 1 draft, got {self.tree}")
    successors = max(self.topology.rank) + 1
    if successors > self.candidates:
      raise ValueError(
        f"the tree needs {successors} successors per token, but candidates is {self.candidates}"
      )

  @property
  def fixed_shape(self) -> Topology:
    return self.topology

  @functools.cached_property
  def topology(self) -> Topology:
    if isinstance(self.tree, Topology):
      return self.tree
    return template(self.tree, self.candidates)

  @property
  def height(self) -> int:
    return self.topology.height

  @property
  def breadth(self) -> int:
    return self.topology.breadth

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.DELTA

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> Int[Array, "V K"]:
    known = jnp.arange(1, prompt.shape[1]) < length[:, None]
    empty = jnp.full((self.vocab_size, self.candidates), -1, jnp.int32)
    return of_bigrams(empty, prompt[:, :-1].ravel(), prompt[:, 1:].ravel(), known.ravel())

  def propose(
    self, params: PyTree, state: Int[Array, "V K"], context: Context
  ) -> tuple[Draft, Int[Array, "V K"]]:
    shape = self.topology
    batch = context.last.shape[0]
    token = jnp.zeros((batch, shape.size), jnp.int32).at[:, 0].set(context.last)
    valid = jnp.zeros((batch, shape.size), bool).at[:, 0].set(True)
    for nodes in map(jnp.array, shape.levels()[1:]):
      parent, rank = jnp.array(shape.parent)[nodes], jnp.array(shape.rank)[nodes]
      successor = state[token[:, parent], rank]
      token = token.at[:, nodes].set(jnp.maximum(successor, 0))
      valid = valid.at[:, nodes].set(valid[:, parent] & (successor >= 0))
    return Draft(shape.tree(token, valid), DraftScheme.DELTA), state

  def update(self, state: Int[Array, "V K"], round: Round) -> Int[Array, "V K"]:
    computed = round.tree.valid & (round.num_emitted > 0)[:, None]
    top, _ = top_k_siblings(round.logits, self.candidates)
    rows = top.reshape(-1, self.candidates)
    return replace_rows(state, round.tree.token.ravel(), rows, computed.ravel())


def replace_rows(
  matrix: Matrix, token: Int[Array, " M"], rows: Int[Array, "M K"], real: Bool[Array, " M"]
) -> Matrix:
  """Sets row token[m] to rows[m] for every real m; of equal tokens the last m counts."""
  size, index = matrix.shape[0], jnp.arange(token.shape[0])
  last = jnp.full((size,), -1, jnp.int32).at[jnp.where(real, token, size)].max(index, mode="drop")
  counts = real & (last[token] == index)
  # Without duplicates the order of a scatter does not matter.
  return matrix.at[jnp.where(counts, token, size)].set(rows, mode="drop")


def of_bigrams(
  matrix: Matrix, first: Int[Array, " M"], second: Int[Array, " M"], real: Bool[Array, " M"]
) -> Matrix:
  """Writes the distinct tokens that followed each token, the latest first, at most K of them."""
  size, successors = matrix.shape
  index = jnp.arange(first.shape[0])
  first = jnp.where(real, first, size)
  # Equal pairs side by side, the latest before the others: it alone stays.
  order = jnp.lexsort((-index, second, first))
  first, second, index = first[order], second[order], index[order]
  again = (
    (first == jnp.roll(first, 1)) & (second == jnp.roll(second, 1)) & (jnp.arange(len(order)) > 0)
  )
  first = jnp.where(again, size, first)
  order = jnp.lexsort((-index, first))
  first, second = first[order], second[order]
  place = jnp.arange(len(order))
  begins = (first != jnp.roll(first, 1)) | (place == 0)
  rank = place - jax.lax.cummax(jnp.where(begins, place, 0))
  return matrix.at[first, jnp.where(first < size, rank, successors)].set(second, mode="drop")


def template(drafts: int, candidates: int = 8) -> Topology:
  """Returns the `drafts` paths most often right if successors are right at `_RATES`, independently.

  Best first, which is the optimum as the rates fall with rank (2402.12374, sec. 4.1).
  """
  rates = _RATES[:candidates]
  waiting: list[tuple[float, tuple[int, ...]]] = [(-p, (rank,)) for rank, p in enumerate(rates)]
  heapq.heapify(waiting)
  paths = []
  while len(paths) < drafts:
    value, path = heapq.heappop(waiting)
    paths.append(path)
    for rank, rate in enumerate(rates):
      heapq.heappush(waiting, (value * rate, (*path, rank)))
  return encodings.from_paths(paths)
