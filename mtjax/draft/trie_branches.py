"""Draft trees in the making, and Lookahead's three methods to choose them (2312.12728)."""

import heapq

from mtjax.draft.model_free.trie_counts import Counts

# Nodes of a text's last tokens in its own counts and in those of the outputs, for several numbers
# of tokens, the largest number first; None: never followed by anything.
Match = tuple[int | None, int | None]
Matches = list[Match]

RETRIEVALS = ("hier", "par", "one")


class Branches:
  """A draft tree in the making: node 0 is the root, which holds no draft."""

  __slots__ = ("children", "depth", "order", "parent", "survival", "token")

  def __init__(self):
    self.token, self.parent, self.depth, self.order = [0], [-1], [0], [0]
    self.survival = [1.0]  # as `Draft.survival`; not read where a store has no estimate
    self.children: list[dict[int, int]] = [{}]

  def below(self, parent: int, token: int, survival: float = 1.0) -> int:
    """Returns the child of `parent` with `token`; it is made if it is not there."""
    siblings = self.children[parent]
    node = siblings.get(token)
    if node is None:
      node = len(self.token)
      self.token.append(token)
      self.parent.append(parent)
      self.depth.append(self.depth[parent] + 1)
      self.order.append(len(siblings))
      self.survival.append(survival)
      self.children.append({})
      siblings[token] = node
    return node

  @property
  def drafts(self) -> int:
    return len(self.token) - 1


def add_most_frequent(
  out: Branches,
  counts: tuple[Counts, Counts],
  nodes: Match,
  weights: tuple[float, float],
  max_drafts: int,
  depth: int,
) -> None:
  """Adds continuations of two nodes by falling weighted sum of counts, up to `max_drafts` drafts.

  Counts fall along a path, so whatever is chosen has its ancestors. Ties go to the one
  that was found first, which is the shallower one.
  """
  (own, shared), (own_node, shared_node), (own_weight, shared_weight) = counts, nodes, weights
  own_count, shared_count, shared_token = own.count, shared.count, shared.token
  nothing: dict[int, int] = {}
  heap: list = []
  place = ticket = 0
  push, pop = heapq.heappush, heapq.heappop
  while out.drafts < max_drafts:
    if out.depth[place] < depth:
      mine = nothing if own_node is None else own.children[own_node]
      theirs = nothing if shared_node is None else shared.children[shared_node]
      for token, child in mine.items():
        other = theirs.get(token)
        score = own_weight * own_count[child]
        if other is not None:
          score += shared_weight * shared_count[other]
        ticket += 1
        push(heap, (-score, ticket, place, token, child, other))
      if shared_node is not None and theirs:
        wanted, there = max_drafts - out.drafts, out.children[place]
        for child in shared.ranked(shared_node):
          token = shared_token[child]
          if token not in mine:
            ticket += 1
            push(heap, (-shared_weight * shared_count[child], ticket, place, token, None, child))
            wanted -= token not in there
            if not wanted:
              break
    if not heap:
      break
    _, _, place, token, own_node, shared_node = pop(heap)
    place = out.below(place, token)


def add_side_by_side(out: Branches, tree: Branches) -> None:
  """Adds the branches of `tree` that as many entries hold when no two share a prefix.

  Lookahead's `par`: every branch is laid out from the root, in the tree's order, until there are
  as many entries as `tree` has drafts; the last one is cut. Entries with one prefix and one token
  are verified alike, so `out` holds each of them once, and what the copies take stays empty.
  """
  left = tree.drafts
  stack: list[tuple[int, list[int]]] = [(0, [])]
  while stack and left:
    node, path = stack.pop()
    children = tree.children[node]
    stack += [(child, [*path, token]) for token, child in reversed(children.items())]
    if not children:
      place = 0
      for token in path[:left]:
        place = out.below(place, token)
      left -= min(left, len(path))


def add_one_branch(
  out: Branches,
  counts: tuple[Counts, Counts],
  matches: Matches,
  weights: tuple[float, float],
  depth: int,
) -> None:
  """Adds the path of the most frequent continuations of one match: Lookahead's `one`.

  The longest match whose path has at least half of `depth` tokens decides, or else the shortest.
  """
  path: list[int] = []
  for nodes in matches:
    path = _branch(counts, nodes, weights, depth)
    if len(path) >= max(depth // 2, 1):
      break
  place = 0
  for token in path:
    place = out.below(place, token)


def _branch(counts, nodes: Match, weights, depth: int) -> list[int]:
  path: list[int] = []
  while len(path) < depth:
    step = Branches()
    add_most_frequent(step, counts, nodes, weights, 1, 1)
    if not step.drafts:
      break
    token = step.token[1]
    path.append(token)
    own, shared = (
      None if node is None else each.children[node].get(token)
      for each, node in zip(counts, nodes, strict=True)
    )
    nodes = own, shared
  return path
