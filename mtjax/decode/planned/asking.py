"""Questions to a chooser on the host, as integers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from mtjax.decode.planned.counting import RoundCounts
from mtjax.draft import host
from mtjax.draft.shaped.shape import Shape
from mtjax.trees import chain
from mtjax.tuning.online.chooser import Chooser, Report
from mtjax.tuning.online.watching import Watched
from mtjax.tuning.profiles.counts import AcceptanceCounts


class PlannedChoice(struct.PyTreeNode):
  """A chooser's answer."""

  branch: Int[Array, ""]
  rounds: Int[Array, ""]
  watch: Bool[Array, ""]
  shape: Shape

  @classmethod
  def plain(cls, size: int) -> "PlannedChoice":
    """Returns the choice before the first question, of no round."""
    shape = jax.tree.map(jnp.asarray, Shape.of(chain(0), size))
    return cls(jnp.int32(0), jnp.int32(0), jnp.zeros((), bool), shape)


class WatchedDrafts(struct.PyTreeNode):
  """What would have been right of a drafter's chain: `mtjax.tuning.online.watching.Watched`."""

  right: Int[Array, "B W"]
  length: Int[Array, " B"]
  begin: Int[Array, " B"]
  height: int = struct.field(pytree_node=False)

  @classmethod
  def none(cls, length: Int[Array, " B"], window: int, height: int) -> "WatchedDrafts":
    return cls(jnp.zeros((length.shape[0], window), jnp.int32), length, length, height)


def is_watched(choice: PlannedChoice) -> Bool[Array, ""]:
  """Returns whether drafts shall be compared with the text of the choice's rounds."""
  return choice.watch & (choice.branch == 0)


def begin(handle: Int[Array, ""], length: Int[Array, " B"]) -> Int[Array, ""]:
  """Returns the chooser's number of a run with as many rows as there are lengths."""
  run = jax.ShapeDtypeStruct((1,), jnp.int32)
  return host.call(lambda store, length: _begin(store, length), run, handle, length)[0]


def _begin(chooser: Chooser, length: np.ndarray) -> np.ndarray:
  return np.array([chooser.begin(len(length))], np.int32)


def ask(
  handle: Int[Array, ""],
  run: Int[Array, ""],
  choice: PlannedChoice,
  rounds: Int[Array, ""],
  counts: RoundCounts,
  drafts: WatchedDrafts,
) -> PlannedChoice:
  """Returns what the chooser says after `rounds` rounds of `choice`."""
  size = choice.shape.parent.shape[0]
  answer = jax.ShapeDtypeStruct((3 + 5 * size,), jnp.int32)
  watched = is_watched(choice)
  numbers = jnp.stack([run, choice.branch, rounds, counts.trees, watched]).astype(jnp.int32)

  def on_host(chooser: Chooser, numbers, tried, accepted, right, length, begin):
    run, branch, rounds, trees, watched = numbers.tolist()
    known = AcceptanceCounts(tried.astype(np.int64), accepted.astype(np.int64), trees)
    seen = None
    if watched:
      seen = Watched(right.tolist(), length.tolist(), begin.tolist(), drafts.height)
    order = chooser.choose(run, Report(branch, rounds, known, seen))
    shape = Shape.of(order.topology, size)
    nodes = (shape.parent, shape.rank, shape.order, shape.depth, shape.there)
    return np.concatenate([[order.branch, order.rounds, order.watch], *nodes]).astype(np.int32)

  said = host.call(
    on_host, answer, handle, numbers, counts.tried, counts.accepted, drafts.right, drafts.length,
    drafts.begin,
  )  # fmt: skip
  parent, rank, order, depth, there = said[3:].reshape(5, size)
  shape = Shape(parent, rank, order, depth, there > 0)
  return PlannedChoice(said[0], said[1], said[2] > 0, shape)
