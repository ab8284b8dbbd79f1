"""A canvas being filled: what does not change, what does, and how decided entries go in."""

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import Canvas
from mtjax.cache import KVCache
from mtjax.sampling.logits import Rules
from mtjax.types import Frontier


class Problem(struct.PyTreeNode):
  """What is to be filled, and how: one row a text."""

  canvas: Canvas
  order: Int[Array, "B A"]  # canvas index of the asked entries, first to last; any past `total`
  total: Int[Array, " B"]
  rules: Rules
  key: Key[Array, " B"]  # a row depends on its own key and nothing else in the batch
  # No row has more given entries; None: as many as there are entries. The first pass reads so many.
  max_context: int | None = struct.field(pytree_node=False, default=None)


class FillState(struct.PyTreeNode):
  """A canvas in progress. The cache holds the given entries and the first decided ones.

  Those are all of them, or (`pending`) all but the last: the oracle pass that decides an entry
  itself has not read it.
  """

  cache: KVCache
  token: Int[Array, "B L"]  # the canvas, decided entries filled in
  count: Int[Array, " B"]  # entries decided
  pending: Bool[Array, " B"]
  decided_at: Int[Array, "B L"]  # forward pass that decided an entry, from 1; 0: given or open
  drafted: Bool[Array, "B L"]  # decided entries that were accepted drafts
  forwards: Int[Array, " B"]  # passes that a row took part in, the first included
  kept: Float[Array, "B K V"] | None  # laws (logits) of entries count, count + 1, ...; None: none
  # Laws (logits) of entries 1, 2, ... of the order, as the first pass had them; None: not recalled.
  first: Float[Array, "B A V"] | None = None

  def active(self, problem: Problem) -> Bool[Array, " B"]:
    return self.count < problem.total


def context_entries(problem: Problem) -> tuple[Int[Array, "B G"], Int[Array, " B"]]:
  """Canvas indices of the given entries, from left to right, anything past them; their number."""
  is_context = problem.canvas.is_context
  index = jnp.argsort(~is_context, axis=1, stable=True)
  return index[:, : problem.max_context], jnp.sum(is_context, axis=1, dtype=jnp.int32)


def context_contents(problem: Problem) -> tuple[Frontier, Int[Array, " B"]]:
  """The given entries, side by side, who all see each other; and their number."""
  index, count = context_entries(problem)
  token, position = (
    jnp.take_along_axis(x, index, axis=1) for x in (problem.canvas.token, problem.canvas.position)
  )
  valid = jnp.arange(index.shape[1]) < count[:, None]
  return frontier_lib.content(token, position, jnp.zeros_like(token), valid=valid), count


def at_ranks(problem: Problem, first: Int[Array, " B"], size: int) -> Int[Array, "B N"]:
  """Canvas indices of the asked entries first, first + 1, ...; anything past the last one."""
  rank = jnp.minimum(first[:, None] + jnp.arange(size), problem.order.shape[1] - 1)
  return jnp.take_along_axis(problem.order, rank, axis=1)


def decide(
  problem: Problem,
  state: FillState,
  token: Int[Array, "B P"],
  count: Int[Array, " B"],
  drafts: Int[Array, " B"],
) -> FillState:
  """Writes token[b, :count[b]] into the next open entries of every row that has some.

  What exceeds a row's open entries is dropped. The first `drafts` of them count as drafts.
  """
  size = token.shape[1]
  active = state.active(problem)
  num_decided = jnp.where(active, jnp.minimum(count, problem.total - state.count), 0)
  forwards = state.forwards + active
  new = jnp.arange(size) < num_decided[:, None]
  # Out of the canvas is nowhere.
  index = jnp.where(new, at_ranks(problem, state.count, size), problem.canvas.size)
  rows = jnp.arange(token.shape[0])[:, None]

  def put(old, values):
    return old.at[rows, index].set(values, mode="drop")

  return state.replace(
    token=put(state.token, token),
    decided_at=put(state.decided_at, jnp.broadcast_to(forwards[:, None], token.shape)),
    drafted=put(state.drafted, jnp.arange(size) < drafts[:, None]),
    count=state.count + num_decided,
    forwards=forwards,
  )
