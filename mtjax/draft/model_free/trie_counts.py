"""Counts of token sequences: a trie of every n-gram of texts, up to a length."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

ROOT, GONE = 0, -1


class Counts:
  """Counts of all n-grams of up to `length` tokens, within capacities.

  A count is never above that of the n-gram without its last token. The nodes that begin with one
  token are a tree. Capacities are looked at when a text ends, never while it goes on:

  * once `squeeze_after` trees were updated since the last time, each of these that has more than
    `tree_nodes` nodes is squeezed, once: n-grams seen once at most go, the counts of the others
    are halved (2312.12728, as its authors' program does it). A tree may hold more in between, and
    after it too where its n-grams are frequent. The wait matters: what was seen once needs the
    time to be seen again.
  * while there are more than `max_total` nodes in all, the least recently updated tree goes. The
    last one that is left is squeezed until it fits.

  Nodes are numbers, not objects: Python's garbage collector would look at every one of them, again
  and again, and take longer than all the rest. A node takes 300 to 400 bytes.
  """

  def __init__(
    self,
    length: int,
    tree_nodes: int | None = None,
    max_total: int | None = None,
    squeeze_after: int = 1,
  ):
    self.length, self.tree_nodes, self.max_total = length, tree_nodes, max_total
    self.squeeze_after = squeeze_after
    # By node, which is an n-gram: its continuations, its last token, its first, its count.
    self.children: list[dict[int, int]] = [{}]
    self.token, self.tree, self.count = [-1], [-1], [1.0]
    self.sizes: dict[int, int] = {}  # nodes of each tree, the least recently updated first
    self.size = 0
    self._ranked: list[tuple[int, ...] | None] = [None]
    self._free: list[int] = []
    self._updated: set[int] = set()  # trees, since the last squeeze
    # Of growing texts: the n-grams that they end with and that can go on, longest first.
    self._ends: dict[Hashable, list[int]] = {}

  def add(self, text: Hashable, tokens: Sequence[int]) -> None:
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
    self._updated.update(tokens)
    for tree in dict.fromkeys(tokens):
      self.sizes[tree] = self.sizes.pop(tree)

  def end(self, text: Hashable) -> None:
    """Ends the text of that name; its counts stay, within the capacities."""
    self._ends.pop(text, None)
    gone: list[int] = []
    if self.tree_nodes is not None and len(self._updated) >= self.squeeze_after:
      for tree in self._updated:
        if self.sizes.get(tree, 0) > self.tree_nodes:
          gone += self._squeeze(tree)
      self._updated.clear()
    self._forget(gone + self._evict())

  def resume(self, text: Hashable, tokens: Sequence[int]) -> None:
    """Continues the text of that name after `tokens`, which are counted already."""
    last = tokens[-(self.length - 1) :]
    self._ends[text] = [self._node(last[start:]) for start in range(len(last))]

  def copy(self) -> "Counts":
    """Returns the same counts, which no text goes on with and which this one does not share."""
    out = Counts(self.length, self.tree_nodes, self.max_total, self.squeeze_after)
    out.children = [below.copy() for below in self.children]
    out.token, out.tree, out.count = self.token[:], self.tree[:], self.count[:]
    out.sizes, out.size = self.sizes.copy(), self.size
    out._ranked, out._free, out._updated = self._ranked[:], self._free[:], self._updated.copy()
    return out

  def find(self, tokens: Sequence[int]) -> int | None:
    """Returns the node of an n-gram, or None if it did not occur."""
    node = self._node(tokens)
    return None if node == GONE else node

  def ranked(self, node: int) -> tuple[int, ...]:
    """Returns children by falling count; of equals, the one seen first comes first."""
    ranked = self._ranked[node]
    if ranked is None:
      children = sorted(self.children[node].values(), key=self.count.__getitem__, reverse=True)
      ranked = self._ranked[node] = tuple(children)
    return ranked

  def nodes_in_order(self) -> Iterator[tuple[int, int, float]]:
    """Yields (depth from 1, token, count): the least recently updated tree first.

    Within a tree parents come before their children, and children as they were first seen.
    """
    for tree in self.sizes:
      stack = [(1, self.children[ROOT][tree])]
      while stack:
        depth, node = stack.pop()
        yield depth, self.token[node], self.count[node]
        stack += [(depth + 1, child) for child in reversed(self.children[node].values())]

  def restore(self, nodes: Iterable[tuple[int, int, float]]) -> None:
    """Fills empty counts with the output of `nodes_in_order`, without n-grams longer than `length`.

    Raises ValueError for anything that it cannot have returned.
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
      max_count = self.count[above] if depth > 1 else _MAX_COUNT
      if token in self.children[above] or not 0 < count <= max_count:
        raise ValueError(f"token {token} at depth {depth} is there twice or has count {count}")
      path.append(self._new(above, token, count))
    self._evict()

  def _node(self, tokens: Sequence[int]) -> int:
    node = ROOT
    for token in tokens:
      node = self.children[node].get(token, GONE)
      if node == GONE:
        break
    return node

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
    self.sizes[tree] = self.sizes.get(tree, 0) + 1
    return node

  def _squeeze(self, tree: int) -> list[int]:
    """Returns the removed nodes, each without those below it, whose counts are no greater."""
    children, count = self.children, self.count
    node = children[ROOT][tree]
    if count[node] <= 1:
      return self._drop(tree)
    count[node] /= 2
    kept, gone = [node], []
    for node in kept:  # which grows
      below = {token: child for token, child in children[node].items() if count[child] > 1}
      if len(below) < len(children[node]):
        gone += [child for child in children[node].values() if count[child] <= 1]
        children[node] = below
        self._ranked[node] = None
      for child in below.values():
        count[child] /= 2
        kept.append(child)
    self.size += len(kept) - self.sizes[tree]
    self.sizes[tree] = len(kept)
    return gone

  def _evict(self) -> list[int]:
    """Returns the removed nodes, each without those below it."""
    gone: list[int] = []
    if self.max_total is not None and self.size > self.max_total:
      for tree in list(self.sizes):
        while self.size > self.max_total:
          if len(self.sizes) > 1:
            gone += self._drop(tree)
            break
          gone += self._squeeze(tree)
    return gone

  def _drop(self, tree: int) -> list[int]:
    self.size -= self.sizes.pop(tree)
    return [self.children[ROOT].pop(tree)]

  def _forget(self, gone: list[int]) -> None:
    """Frees these nodes and all below them, and ends what running texts would add to them."""
    if not gone:
      return
    for node in gone:  # which grows
      gone += self.children[node].values()
      self.children[node] = {}
      self._ranked[node] = None
    self._ranked[ROOT] = None
    self._free += gone
    without = set(gone)
    for text, ends in self._ends.items():
      self._ends[text] = [GONE if node in without else node for node in ends]


# Adding 1 to greater numbers changes nothing.
_MAX_COUNT = 2.0**53
