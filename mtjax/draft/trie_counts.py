"""How often token sequences occurred: a trie of every n-gram of texts, up to a length."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

ROOT, GONE = 0, -1


class Counts:
  """Counts of all n-grams of up to `length` tokens, within capacities.

  A count is never above that of the n-gram without its last token. The nodes that begin with one
  token are a tree; one of more than `tree_nodes` nodes is squeezed, and all of them are when
  there are more than `nodes` in all (2312.12728): n-grams seen once at most go, the counts of the
  others are halved, again and again until the capacity is kept.

  Nodes are numbers, not objects: Python's garbage collector would look at every one of them, again
  and again, and take longer than all the rest.
  """

  def __init__(self, length: int, tree_nodes: int | None = None, nodes: int | None = None):
    self.length, self.tree_nodes, self.nodes = length, tree_nodes, nodes
    # By node, which is an n-gram: its continuations, its last token, its first, its count.
    self.children: list[dict[int, int]] = [{}]
    self.token, self.tree, self.count = [-1], [-1], [1.0]
    self.sizes: dict[int, int] = {}  # nodes of each tree
    self.size = 0
    self._ranked: list[tuple[int, ...] | None] = [None]
    self._free: list[int] = []
    self._over: set[int] = set()
    # Of growing texts: the n-grams that they end with and that can go on, longest first.
    self._ends: dict[Hashable, list[int]] = {}

  def add(self, text: Hashable, tokens: Iterable[int]) -> None:
    """Counts the next tokens of the text of that name."""
    children, count, ranked = self.children, self.count, self._ranked
    ends = self._ends.get(text, [])
    for token in tokens:
      grown = []
      for node in (*ends, ROOT):
        if node == GONE:  # was squeezed out: its continuations are not counted
          grown.append(GONE)
          continue
        child = children[node].get(token)
        if child is None:
          child = self._new(node, token, 0)
        count[child] += 1
        ranked[node] = None
        grown.append(child)
      ends = grown[-(self.length - 1) :]
    self._ends[text] = ends
    self._keep_capacities()

  def end(self, text: Hashable) -> None:
    """The text of that name goes on no more; its counts stay."""
    self._ends.pop(text, None)

  def find(self, tokens: Sequence[int]) -> int | None:
    """The node of an n-gram that has continuations, or None."""
    node = ROOT
    for token in tokens:
      child = self.children[node].get(token)
      if child is None:
        return None
      node = child
    return node if self.children[node] else None

  def ranked(self, node: int) -> tuple[int, ...]:
    """Children by falling count; of equals, the one seen first."""
    found = self._ranked[node]
    if found is None:
      children = sorted(self.children[node].values(), key=self.count.__getitem__, reverse=True)
      found = self._ranked[node] = tuple(children)
    return found

  def nodes_in_order(self) -> Iterator[tuple[int, int, float]]:
    """(depth from 1, token, count), parents before their children, children as first seen."""
    stack = [(1, node) for node in reversed(self.children[ROOT].values())]
    while stack:
      depth, node = stack.pop()
      yield depth, self.token[node], self.count[node]
      stack += [(depth + 1, child) for child in reversed(self.children[node].values())]

  def restore(self, nodes: Iterable[tuple[int, int, float]]) -> None:
    """Fills empty counts with what `nodes_in_order` gave, longer n-grams than `length` left out.

    Raises ValueError for anything that it cannot have given.
    """
    path = [ROOT]
    for depth, token, count in nodes:
      if not 1 <= depth <= len(path):
        raise ValueError(f"a node of depth {depth} follows one of depth {len(path) - 1}")
      del path[depth:]
      if depth > self.length:
        path.append(GONE)
        continue
      above = path[-1]
      most = self.count[above] if depth > 1 else float("inf")
      if token in self.children[above] or not 0 < count <= most:
        raise ValueError(f"token {token} at depth {depth} is there twice or has count {count}")
      path.append(self._new(above, token, count))
    self._keep_capacities()

  def _new(self, above: int, token: int, count: float) -> int:
    tree = token if above == ROOT else self.tree[above]
    if self._free:
      node = self._free.pop()
      self.token[node], self.tree[node], self.count[node] = token, tree, count
    else:
      node = len(self.token)
      self.children.append({})
      self.token.append(token)
      self.tree.append(tree)
      self.count.append(count)
      self._ranked.append(None)
    self.children[above][token] = node
    self.size += 1
    self.sizes[tree] = size = self.sizes.get(tree, 0) + 1
    if self.tree_nodes is not None and size > self.tree_nodes:
      self._over.add(tree)
    return node

  def _keep_capacities(self) -> None:
    gone: set[int] = set()
    while self._over:
      tree = self._over.pop()
      while self.tree_nodes is not None and self.sizes.get(tree, 0) > self.tree_nodes:
        gone |= self._squeeze(tree)
    while self.nodes is not None and self.size > self.nodes:
      for tree in list(self.sizes):
        gone |= self._squeeze(tree)
    if gone:
      for text, ends in self._ends.items():
        self._ends[text] = [GONE if node in gone else node for node in ends]

  def _squeeze(self, tree: int) -> set[int]:
    """The nodes that went."""
    kept, gone = 0, set()
    stack = [(ROOT, self.children[ROOT][tree])]
    while stack:
      above, node = stack.pop()
      stack += [(node, child) for child in self.children[node].values()]
      self._ranked[node] = None
      if self.count[node] > 1:
        self.count[node] /= 2
        kept += 1
      else:  # and with it all below, whose counts are no greater
        del self.children[above][self.token[node]]
        gone.add(node)
    self._ranked[ROOT] = None
    self.size += kept - self.sizes.pop(tree)
    if kept:
      self.sizes[tree] = kept
    self._free += gone
    return gone
