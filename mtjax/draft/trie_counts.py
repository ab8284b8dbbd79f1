"""How often token sequences occurred: a trie of every n-gram of a text, up to a length."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

_COUNT = attrgetter("count")


class Node:
  """An n-gram: its last token and its count; its continuations are its children."""

  __slots__ = ("children", "count", "sorted", "token", "tree")

  def __init__(self, token: int, tree: int, count: float = 0):
    self.token, self.tree, self.count = token, tree, count
    self.children: dict[int, Node] = {}
    self.sorted: list[Node] | None = None  # None: to be sorted again

  def ranked(self) -> list["Node"]:
    """Children by falling count; of equals, the one seen first."""
    if self.sorted is None:
      self.sorted = sorted(self.children.values(), key=_COUNT, reverse=True)
    return self.sorted


Ends = list[Node]  # of a growing text: the n-grams that end with it and can go on, longest first


class Counts:
  """Counts of all n-grams of up to `length` tokens, within capacities.

  A count is never above that of the n-gram without its last token. The nodes that begin with one
  token are a tree; one of more than `tree_nodes` nodes is squeezed, and all of them are when
  there are more than `nodes` in all (2312.12728): n-grams seen once at most go, the counts of the
  others are halved, again and again until the capacity is kept.
  """

  def __init__(self, length: int, tree_nodes: int | None = None, nodes: int | None = None):
    self.length, self.tree_nodes, self.nodes = length, tree_nodes, nodes
    self.root = Node(-1, -1, 1)
    self.sizes: dict[int, int] = {}  # nodes of each tree
    self.size = 0
    self._over: set[int] = set()

  def add(self, ends: Ends, tokens: Iterable[int]) -> Ends:
    """Counts the tokens that follow a text; returns the text's ends after them."""
    for token in tokens:
      grown = []
      for node in (*ends, self.root):
        if node.count:
          grown.append(self._count(node, token))
        else:
          grown.append(node)  # was squeezed out: its continuations are not counted
      ends = grown[-(self.length - 1) :] if self.length > 1 else []
    self._keep_capacities()
    return ends

  def find(self, tokens: Sequence[int]) -> Node | None:
    """The node of an n-gram that has continuations, or None."""
    node = self.root
    for token in tokens:
      node = node.children.get(token)
      if node is None:
        return None
    return node if node.children else None

  def nodes_in_order(self) -> Iterator[tuple[int, int, float]]:
    """(depth from 1, token, count), parents before their children, children as first seen."""
    stack = [(1, child) for child in reversed(self.root.children.values())]
    while stack:
      depth, node = stack.pop()
      yield depth, node.token, node.count
      stack += [(depth + 1, child) for child in reversed(node.children.values())]

  def restore(self, nodes: Iterable[tuple[int, int, float]]) -> None:
    """Adds what `nodes_in_order` gave, longer n-grams than `length` left out.

    Raises ValueError for anything that it cannot have given.
    """
    path = [self.root]
    for depth, token, count in nodes:
      if not 1 <= depth <= len(path):
        raise ValueError(f"a node of depth {depth} follows one of depth {len(path) - 1}")
      del path[depth:]
      above = path[-1]
      if token in above.children or not count > 0 or (depth > 1 and count > above.count):
        raise ValueError(f"token {token} at depth {depth} is there twice or has count {count}")
      node = Node(token, above.tree if depth > 1 else token, count)
      path.append(node)
      if depth <= self.length:
        above.children[token] = node
        above.sorted = None
        self._grow(node.tree)
    self._keep_capacities()

  def _count(self, node: Node, token: int) -> Node:
    child = node.children.get(token)
    if child is None:
      tree = token if node is self.root else node.tree
      child = node.children[token] = Node(token, tree)
      self._grow(tree)
    child.count += 1
    node.sorted = None
    return child

  def _grow(self, tree: int) -> None:
    self.size += 1
    self.sizes[tree] = size = self.sizes.get(tree, 0) + 1
    if self.tree_nodes is not None and size > self.tree_nodes:
      self._over.add(tree)

  def _keep_capacities(self) -> None:
    while self._over:
      tree = self._over.pop()
      while self.sizes.get(tree, 0) > self.tree_nodes:
        self._squeeze(tree)
    while self.nodes is not None and self.size > self.nodes:
      for tree in list(self.sizes):
        self._squeeze(tree)

  def _squeeze(self, tree: int) -> None:
    kept, stack = 0, [(self.root, self.root.children[tree])]
    while stack:
      above, node = stack.pop()
      above.sorted = None
      children = [(node, child) for child in node.children.values()]
      if above.count and node.count > 1:
        node.count /= 2
        kept += 1
      else:
        above.children.pop(node.token)
        node.count = 0
      stack += children
    self.size += kept - self.sizes[tree]
    self.sizes[tree] = kept
    if not kept:
      del self.sizes[tree]
