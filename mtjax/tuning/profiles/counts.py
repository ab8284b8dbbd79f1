"""Counts of tried and accepted candidates, from recorded rounds or from replayed text."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mtjax.rounds.history import RoundRecord, TreeRecord
from mtjax.trees import Topology


@dataclasses.dataclass(frozen=True)
class AcceptanceCounts:
  """How often the child of rank r of an accepted node at depth d was there, and was accepted.

  Index [d, r]: the child has depth d + 1. `rounds` is the number of trees. Raises ValueError for
  numbers that no rounds can give: at most one child of a node is accepted, and only the children of
  accepted nodes are tried.
  """

  tried: Int[np.ndarray, "H K"]
  accepted: Int[np.ndarray, "H K"]
  rounds: int

  def __post_init__(self):
    tried, accepted = self.tried, self.accepted
    if tried.ndim != 2 or tried.shape != accepted.shape or not tried.size:
      raise ValueError(
        f"tried and accepted must be [depths, ranks], got {tried.shape} and {accepted.shape}"
      )
    if np.any(accepted < 0) or np.any(accepted > tried):
      depth, rank = np.argwhere((accepted < 0) | (accepted > tried))[0]
      raise ValueError(
        f"at depth {depth + 1}, rank {rank}, {accepted[depth, rank]} candidates of "
        f"{tried[depth, rank]} were accepted"
      )
    nodes = self.rounds
    for depth in range(len(tried)):
      if tried[depth].max() > nodes:
        raise ValueError(
          f"at depth {depth + 1} a rank was tried {tried[depth].max()} times after {nodes} "
          "accepted nodes"
        )
      if accepted[depth].sum() > nodes:
        raise ValueError(
          f"at depth {depth + 1} {accepted[depth].sum()} candidates were accepted after {nodes} "
          "accepted nodes: at most one child of a node is"
        )
      nodes = int(accepted[depth].sum())

  @classmethod
  def none(cls, height: int, breadth: int) -> "AcceptanceCounts":
    """Returns counts of no round."""
    zero = np.zeros((height, breadth), np.int64)
    return cls(zero, zero.copy(), 0)

  def __add__(self, other: "AcceptanceCounts") -> "AcceptanceCounts":
    """Returns the counts of both; the smaller table is widened with zeros."""
    height, breadth = np.maximum(self.tried.shape, other.tried.shape)

    def both(one, two):
      out = np.zeros((height, breadth), np.int64)
      out[: one.shape[0], : one.shape[1]] += one
      out[: two.shape[0], : two.shape[1]] += two
      return out

    return AcceptanceCounts(
      both(self.tried, other.tried),
      both(self.accepted, other.accepted),
      self.rounds + other.rounds,
    )


def count_history(
  history: Sequence[RoundRecord], *, shape: Topology | None = None
) -> AcceptanceCounts:
  """Returns the counts of the trees of a history (`mtjax.rounds.history`), all rows together.

  A rank of a node is its place among its siblings, or that of `shape`. After the last accepted node
  all children were refused, unless the text ended there: then they were not judged.

  shape: the shape that the drafter had to draft in each round. Nodes that a tree lacks then count
  as tried and not accepted, as drafters of lookup do not always find a draft, but not those behind
  the end of the text. A tree with another structure than the shape's is not counted. None: only
  nodes that were there count, so the rates are those of rounds with a draft. Raises ValueError for
  a history without trees, and where no tree has the structure of `shape`.
  """
  rows = [
    [tree for tree in row if isinstance(tree, TreeRecord)]
    for row in zip(*(record.rows for record in history), strict=True)
  ]
  if not any(rows):
    raise ValueError("the history has no trees of drafts: record that of a speculative method")
  tried: list[tuple[int, int]] = []
  accepted: list[tuple[int, int]] = []
  rounds = 0
  for trees in rows:
    rest = sum(len(tree.emitted) for tree in trees)  # tokens of the text from this round on
    for tree in trees:
      ranks = _places(tree.parents)
      offered = _children(tree.parents, ranks)
      if shape is not None and (placed := _placed(tree, shape)) is not None:
        ranks = [shape.rank[node] for node in placed]
        offered = _offered(tree, shape, placed, rest)
      elif shape is not None:
        rest -= len(tree.emitted)
        continue
      judged = tree.path if tree.bonus is not None else tree.path[:-1]
      tried += [(depth, rank) for depth, node in enumerate(judged) for rank in offered[node]]
      accepted += [(depth, ranks[node]) for depth, node in enumerate(tree.path[1:])]
      rounds += 1
      rest -= len(tree.emitted)
  if not rounds:
    raise ValueError(
      "no recorded tree has the structure of the shape: was it drafted with another?"
    )
  return _table(tried, accepted, rounds, shape)


def count_paths(
  shape: Topology, path: Int[np.ndarray, "B P"], count: Int[np.ndarray, " B"]
) -> AcceptanceCounts:
  """Returns the counts of one round in which all rows had trees of one shape.

  path, count: of the verdicts (`mtjax.types.Verdict`); a row with count 0 had ended. For rows whose
  nodes were all valid.
  """
  height, breadth = max(shape.height, 1), max(shape.rank) + 1
  tried, accepted = np.zeros((2, height, breadth), np.int64)
  parent, rank = np.array(shape.parent), np.array(shape.rank)
  for depth in range(min(path.shape[1], height + 1)):
    reached = path[:, depth][count > depth]
    if depth:
      np.add.at(accepted[depth - 1], rank[reached], 1)
    if depth < height:
      # How often each node was the accepted one at this depth, looked up by its children.
      times = np.bincount(reached, minlength=shape.size)
      np.add.at(tried[depth], rank[1:], times[parent[1:]])
  return AcceptanceCounts(tried, accepted, int(np.sum(count > 0)))


def count_ranks(rank: Int[np.ndarray, "M H"], breadth: int) -> AcceptanceCounts:
  """Returns the counts of text that was replayed: M places, and H tokens drafted at each.

  rank[m, d]: the rank of the text's own token among the drafter's candidates after d right ones;
  below 0, or `breadth` and above: it is none of the `breadth` candidates. After such a token
  deeper ranks are not counted. For targets that are greedy, with text that they wrote, these are
  the counts of decoding; for sampled text they are, for candidates that are chosen by a rule.
  Raises ValueError for no place.
  """
  if rank.ndim != 2 or not rank.size:
    raise ValueError(f"ranks must be [places, depths], got an array of shape {rank.shape}")
  found = (rank >= 0) & (rank < breadth)
  before = np.cumprod(np.pad(found, ((0, 0), (1, 0)), constant_values=True), axis=1) > 0
  tried = np.repeat(before[:, :-1].sum(axis=0)[:, None], breadth, axis=1)
  hit = (rank[:, :, None] == np.arange(breadth)) & before[:, :-1, None]
  return AcceptanceCounts(tried.astype(np.int64), hit.sum(axis=0).astype(np.int64), len(rank))


def _places(parents: Sequence[int]) -> list[int]:
  """Returns the place of each node among its siblings."""
  count: dict[int, int] = {}
  out = []
  for parent in parents:
    out.append(count.get(parent, 0))
    count[parent] = out[-1] + 1
  return out


def _children(parents: Sequence[int], ranks: Sequence[int]) -> list[list[int]]:
  """Returns the ranks of the children of each node."""
  out: list[list[int]] = [[] for _ in parents]
  for parent, rank in list(zip(parents, ranks, strict=True))[1:]:
    out[parent].append(rank)
  return out


def _placed(tree: TreeRecord, shape: Topology) -> list[int] | None:
  """Returns the node of the shape for each node of a tree; None if it has another structure.

  A record leaves out nodes that hold no draft. What is left is a shape's upper levels, or the first
  children of each node.
  """
  size = len(tree.tokens)
  for level in range(shape.height, -1, -1):
    nodes = [node for node, depth in enumerate(shape.depth) if depth <= level]
    if len(nodes) == size and tree.parents == shape.parent[:1] + tuple(
      nodes.index(shape.parent[node]) for node in nodes[1:]
    ):
      return nodes
  if shape.rank != shape.order:
    return None
  children, out = shape.children(), [0]
  for parent, place in list(zip(tree.parents, _places(tree.parents), strict=True))[1:]:
    if place >= len(children[out[parent]]):
      return None
    out.append(children[out[parent]][place])
  return out


def _offered(
  tree: TreeRecord, shape: Topology, placed: Sequence[int], rest: int
) -> list[list[int]]:
  """Returns the ranks that each node had to have children of, before the end of the text."""
  children, there = shape.children(), set(placed)
  return [
    [shape.rank[kid] for kid in children[node] if kid in there or shape.depth[kid] <= rest]
    for node in placed
  ]


def _table(tried, accepted, rounds, shape) -> AcceptanceCounts:
  height = max([depth + 1 for depth, _ in tried] + [shape.height if shape else 1, 1])
  breadth = max([rank + 1 for _, rank in tried] + [max(shape.rank) + 1 if shape else 1])
  out = AcceptanceCounts.none(height, breadth)
  for table, places in ((out.tried, tried), (out.accepted, accepted)):
    for place in places:
      table[place] += 1
  return AcceptanceCounts(out.tried, out.accepted, rounds)
