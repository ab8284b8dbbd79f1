"""A canvas that is being filled: its constants, its state, and how decided entries are written."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import Canvas, context_rank
from mtjax.anysubset.filling.constrained import FillConstraint
from mtjax.anysubset.filling.script import FillScript
from mtjax.cache import KVCache
from mtjax.models import Config
from mtjax.sampling.logits import Rules, reported
from mtjax.types import Frontier


class Problem(struct.PyTreeNode):
  """The canvases to fill, the order and the sampling: one text per row."""

  canvas: Canvas
  order: Int[Array, "B A"]  # canvas indices of the targets, first to last; arbitrary past `total`
  total: Int[Array, " B"]  # number of targets per row
  rules: Rules
  key: Key[Array, " B"]  # a row depends on its own key and nothing else in the batch
  # No row has more context entries (None: the size of the canvas). The first pass reads so many.
  max_context: int | None = struct.field(pytree_node=False, default=None)
  constraint: FillConstraint | None = None
  # A row ends when a target is one of these and no target to its left is open; None: none is.
  eos: Int[Array, " E"] | None = None
  recorded: bool = struct.field(pytree_node=False, default=False)  # whether `log_prob` is kept
  script: FillScript | None = None  # what is decided, in place of what is sampled; None: it is not


class FillState(struct.PyTreeNode):
  """A canvas in progress. The cache holds the context entries and decided entries.

  It holds all decided entries or, where `pending`, all but the last: the oracle pass that decides
  an entry itself has not read it.
  """

  cache: KVCache
  token: Int[Array, "B L"]  # the canvas, decided entries filled in
  count: Int[Array, " B"]  # number of decided entries
  pending: Bool[Array, " B"]
  decided_at: Int[Array, "B L"]  # forward pass that decided an entry, from 1; 0: context or open
  drafted: Bool[Array, "B L"]  # decided entries that were accepted drafts
  forwards: Int[Array, " B"]  # number of passes that a row took part in, the first included
  kept: Float[Array, "B K V"] | None  # draft logits of entries count, count + 1, ...; None: none
  # Draft logits of entries 1, 2, ... of the order, from the first pass; None: no method needs them.
  first: Float[Array, "B A V"] | None = None
  # log p of decided tokens as their pass had it; 0: context, or open. None: not recorded.
  log_prob: Float[Array, "B L"] | None = None
  # Place of a decided entry among those of its pass. None: not recorded, or that in the order.
  place: Int[Array, "B L"] | None = None

  def known(self) -> Bool[Array, "B L"]:
    """Returns which targets are decided."""
    return self.decided_at > 0

  def active(self, problem: Problem) -> Bool[Array, " B"]:
    """Returns true in rows in which a target is to be decided."""
    open_ = self.count < problem.total
    if problem.eos is None:
      return open_
    is_target, known = problem.canvas.is_target, self.known()
    before = jnp.cumsum(is_target & ~known, axis=1) == 0
    ends = known & before & jnp.any(self.token[:, :, None] == problem.eos, axis=2)
    return open_ & ~jnp.any(ends, axis=1)

  def with_drafts(
    self, problem: Problem, drafted: Int[Array, "B J"]
  ) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
    """Returns the tokens and `known`, as if the next J entries of the order were these drafts."""
    rows = jnp.arange(drafted.shape[0])[:, None]
    index = entries_at(problem, self.count, drafted.shape[1])
    token = self.token.at[rows, index].set(drafted, mode="drop")
    return token, self.known().at[rows, index].set(True, mode="drop")


def no_log_prob(problem: Problem) -> Float[Array, "B L"] | None:
  """Returns `FillState.log_prob` before anything is decided."""
  return jnp.zeros(problem.canvas.token.shape, jnp.float32) if problem.recorded else None


def log_prob_of(
  problem: Problem, logits: Float[Array, "B P V"], token: Int[Array, "B P"]
) -> Float[Array, "B P"]:
  """Returns log p of each token as a history has it (`mtjax.sampling.logits.reported`)."""
  log_p = jax.nn.log_softmax(reported(logits, problem.rules).astype(jnp.float32), axis=-1)
  return jnp.take_along_axis(log_p, token[:, :, None], axis=2)[:, :, 0]


def context_entries(problem: Problem) -> tuple[Int[Array, "B G"], Int[Array, " B"]]:
  """Returns canvas indices of the context entries, left to right, and their number.

  Indices past that number are arbitrary.
  """
  is_context = problem.canvas.is_context
  index = jnp.argsort(~is_context, axis=1, stable=True)
  return index[:, : problem.max_context], jnp.sum(is_context, axis=1, dtype=jnp.int32)


def context_contents(config: Config, problem: Problem) -> tuple[Frontier, Int[Array, " B"]]:
  """Returns the context entries, side by side, from left to right; and their number."""
  index, count = context_entries(problem)
  token, position = (
    jnp.take_along_axis(x, index, axis=1) for x in (problem.canvas.token, problem.canvas.position)
  )
  number = jnp.broadcast_to(jnp.arange(index.shape[1]), index.shape)
  rank = context_rank(config, number, count[:, None])
  return frontier_lib.content(token, position, rank, valid=number < count[:, None]), count


def at_ranks(problem: Problem, first: Int[Array, " B"], size: int) -> Int[Array, "B N"]:
  """Returns canvas indices of targets number first, first + 1, ...; arbitrary past the last."""
  rank = jnp.minimum(first[:, None] + jnp.arange(size), problem.order.shape[1] - 1)
  return jnp.take_along_axis(problem.order, rank, axis=1)


def entries_at(problem: Problem, first: Int[Array, " B"], size: int) -> Int[Array, "B N"]:
  """Returns what `at_ranks` does, with an index past the canvas where there is no such target."""
  real = first[:, None] + jnp.arange(size) < problem.total[:, None]
  return jnp.where(real, at_ranks(problem, first, size), problem.canvas.size)


def decide(
  problem: Problem,
  state: FillState,
  token: Int[Array, "B P"],
  count: Int[Array, " B"],
  drafts: Int[Array, " B"],
  logits: Float[Array, "B P V"],
) -> FillState:
  """Writes token[b, :count[b]] into the next open entries of every row that has some.

  Tokens past a row's last open entry are dropped. The first `drafts` of them count as drafts.
  `logits`, those of these entries, are read only where log-probabilities are recorded.
  """
  size = token.shape[1]
  active = state.active(problem)
  num_decided = jnp.where(active, jnp.minimum(count, problem.total - state.count), 0)
  forwards = state.forwards + active
  new = jnp.arange(size) < num_decided[:, None]
  # An index outside the canvas is dropped.
  index = jnp.where(new, at_ranks(problem, state.count, size), problem.canvas.size)
  rows = jnp.arange(token.shape[0])[:, None]

  def put(old, values):
    return old.at[rows, index].set(values, mode="drop")

  log_prob = state.log_prob
  if log_prob is not None:
    log_prob = put(log_prob, log_prob_of(problem, logits, token))
  return state.replace(
    token=put(state.token, token),
    decided_at=put(state.decided_at, jnp.broadcast_to(forwards[:, None], token.shape)),
    drafted=put(state.drafted, jnp.arange(size) < drafts[:, None]),
    log_prob=log_prob,
    count=state.count + num_decided,
    forwards=forwards,
  )
