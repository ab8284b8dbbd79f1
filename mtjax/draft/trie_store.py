"""What a trie drafter remembers on the host: prompts of running requests, outputs of all."""

import atexit
import collections
import dataclasses
import functools
import heapq
import itertools
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxtyping import Array, Int

from mtjax.draft import host, trie_file
from mtjax.draft.trie_counts import Counts


class Branches:
  """A draft tree in the making: node 0 is the root, which holds no draft."""

  __slots__ = ("children", "depth", "order", "parent", "token")

  def __init__(self):
    self.token, self.parent, self.depth, self.order = [0], [-1], [0], [0]
    self.children: list[dict[int, int]] = [{}]

  def below(self, parent: int, token: int) -> int:
    """The child of a node that has a token; it is made if it is not there."""
    siblings = self.children[parent]
    node = siblings.get(token)
    if node is None:
      node = len(self.token)
      self.token.append(token)
      self.parent.append(parent)
      self.depth.append(self.depth[parent] + 1)
      self.order.append(len(siblings))
      self.children.append({})
      siblings[token] = node
    return node

  @property
  def drafts(self) -> int:
    return len(self.token) - 1


@dataclasses.dataclass(frozen=True)
class StoreSettings:
  """Counts are those of the n-grams of up to branch_length + 1 tokens."""

  branch_length: int = 12
  max_query: int = 2  # tokens of the text's end that are looked up, at most
  output_weight: float = 1e-4  # what an occurrence in the outputs of all counts beside its own
  tree_nodes: int = 512  # of outputs, for one first token
  nodes: int = 65536  # of outputs in all; a prompt's last tokens count, as many as fit in as much
  generations: int = 8  # whose requests are kept: the oldest goes, unless it said that it ended

  def __post_init__(self):
    for name in ("branch_length", "max_query", "tree_nodes", "nodes", "generations"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
    if not 0 <= self.output_weight <= 1:
      raise ValueError(f"output_weight must be between 0 and 1, got {self.output_weight}")
    if self.max_query > self.branch_length:
      raise ValueError(
        f"max_query ({self.max_query}) must be at most branch_length ({self.branch_length}): a "
        "longer match has no continuation"
      )


@dataclasses.dataclass(frozen=True)
class TrieSettings(StoreSettings):
  """The paper's settings (2312.12728): (1 - w) f_input + w f_output ranks, w = output_weight."""

  output_share: float = 0.5  # of the drafts, chosen by output frequency alone

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.output_share <= 1:
      raise ValueError(f"output_share must be between 0 and 1, got {self.output_share}")


# Nodes of a text's last tokens in its own counts and in those of the outputs, for several numbers
# of tokens, most first; None: never followed by anything.
Matches = list[tuple[int | None, int | None]]

_TEXT = "text"  # the name of the one text in a request's own counts


class _Request:
  """A running request: the n-grams of its own text, and its last tokens."""

  __slots__ = ("counts", "last")

  def __init__(self, length: int):
    self.counts = Counts(length)
    self.last: list[int] = []


class NgramStore:
  """N-grams of the outputs of all requests, and of each one's own text while it runs.

  `extend` counts an output's n-grams as they come, so that the next round finds them, among all
  outputs and in the request's own text. `finish` drops the latter. How drafts are chosen is up to
  the subclass. One process, any number of threads.
  """

  def __init__(self, vocab_size: int, vocabulary: str, settings: StoreSettings):
    """vocabulary: what else than its size tells it from others (`Tokenizer.fingerprint`)."""
    if vocab_size < 1:
      raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    self.vocab_size, self.vocabulary, self.settings = vocab_size, vocabulary, settings
    self.counts = Counts(settings.branch_length + 1, settings.tree_nodes, settings.nodes)
    self._requests: dict[int, _Request] = {}
    self._generations: collections.deque[list[int]] = collections.deque()
    self._ids = itertools.count(1)
    self._lock = threading.RLock()

  @functools.cached_property
  def handle(self) -> Int[Array, ""]:
    """The parameters of the drafters that use this store. Keep the store while they do."""
    return host.register(self)

  # What a drafter calls.

  def begin(self, prompts: Iterable[Sequence[int]]) -> list[int]:
    """Numbers of new requests, one a prompt, that no request had before."""
    length = self.counts.length
    most = max(self.settings.nodes // length, length)
    with self._lock:
      ids = []
      for prompt in prompts:
        request = _Request(length)
        self._learn(request, prompt[-most:])
        ids.append(next(self._ids))
        self._requests[ids[-1]] = request
      self._generations.append(ids)
      while len(self._generations) > self.settings.generations:
        for old in self._generations.popleft():
          self.finish(old)
      return ids

  def extend(self, request: int, tokens: Sequence[int]) -> None:
    """Output of a request. One that has finished is not followed any more."""
    with self._lock:
      found = self._requests.get(request)
      if found is not None:
        self._learn(found, tokens)
        self.counts.add(request, tokens)

  def finish(self, request: int) -> None:
    """Drops a request's own counts."""
    with self._lock:
      self.counts.end(request)
      self._requests.pop(request, None)

  def draft(self, request: int, size: int, depth: int) -> Branches:
    """Up to `size` drafts, none deeper than `depth`: what followed the text's last tokens."""
    out = Branches()
    with self._lock:
      found = self._requests.get(request)
      if found is not None and size > 0:
        self.choose(out, found.counts, self._matches(found), size, depth)
    return out

  # What its owner calls.

  def warm(self, texts: Iterable[Sequence[int]]) -> None:
    """Counts texts of token ids as if they were outputs. ValueError for ids out of range."""
    for number, text in enumerate(texts):
      tokens = [int(token) for token in text]
      if tokens and not (0 <= min(tokens) and max(tokens) < self.vocab_size):
        raise ValueError(f"text {number} has token ids outside 0..{self.vocab_size - 1}")
      with self._lock:
        self.counts.add(_TEXT, tokens)
        self.counts.end(_TEXT)

  def save(self, path: str | Path) -> None:
    """Writes the outputs' counts; a file of that name is replaced at once or not at all."""
    with self._lock:
      trie_file.write(path, self.counts, self.vocab_size, self.vocabulary)

  def load(self, path: str | Path) -> None:
    """Takes the counts of a file that `save` wrote instead of its own.

    Raises ValueError for another vocabulary and for files that are damaged or something else.
    """
    counts = Counts(self.counts.length, self.counts.tree_nodes, self.counts.nodes)
    trie_file.read(path, counts, self.vocab_size, self.vocabulary)
    with self._lock:
      self.counts = counts

  # What a subclass decides.

  def choose(self, out: Branches, own: Counts, matches: Matches, size: int, depth: int) -> None:
    """Adds up to `size` continuations of `matches`; `own` are the request's own counts."""
    raise NotImplementedError

  def _learn(self, request: _Request, tokens: Sequence[int]) -> None:
    request.counts.add(_TEXT, tokens)
    request.last = [*request.last, *tokens][-self.settings.max_query :]

  def _matches(self, request: _Request) -> Matches:
    """Nodes of the text's last tokens in the request's own trie and the shared one."""
    out = []
    for start in range(len(request.last)):
      tokens = request.last[start:]
      own, shared = request.counts.find(tokens), self.counts.find(tokens)
      if own is not None or shared is not None:
        out.append((own, shared))
    return out


class TrieStore(NgramStore):
  """Lookahead's trie (2312.12728): drafts by frequency.

  A share of the drafts is chosen by output frequency, the others by the weighted sum of both; of
  equals the shallow comes first; what a longer match has comes before what a shorter one has.
  Unlike in the paper a request's output counts as its input too: texts repeat themselves more than
  they repeat others (5-10 % more tokens per forward).
  """

  settings: TrieSettings

  def __init__(
    self, vocab_size: int, vocabulary: str = "", settings: TrieSettings = TrieSettings()
  ):
    super().__init__(vocab_size, vocabulary, settings)

  def choose(self, out: Branches, own: Counts, matches: Matches, size: int, depth: int) -> None:
    weight, share = self.settings.output_weight, int(size * self.settings.output_share)
    for _, shared in matches:
      if shared is not None:
        _most_frequent(out, (own, self.counts), (None, shared), (0.0, 1.0), share, depth)
    for pair in matches:
      _most_frequent(out, (own, self.counts), pair, (1 - weight, weight), size, depth)


def _most_frequent(
  out: Branches,
  counts: tuple[Counts, Counts],
  nodes: tuple[int | None, int | None],
  weights: tuple[float, float],
  most: int,
  depth: int,
) -> None:
  """Adds continuations of two nodes by falling weighted sum of their counts, until `most` drafts.

  Counts fall along a path, so whatever is chosen has its ancestors. Equals: first come, first
  served, which is the shallow first.
  """
  (own, shared), (own_node, shared_node), (own_weight, shared_weight) = counts, nodes, weights
  own_count, shared_count, shared_token = own.count, shared.count, shared.token
  nothing: dict[int, int] = {}
  heap: list = []
  place = ticket = 0
  push, pop = heapq.heappush, heapq.heappop
  while out.drafts < most:
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
        wanted, there = most - out.drafts, out.children[place]
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


_KEPT: list[NgramStore] = []


def open_store(path: str, store: NgramStore) -> NgramStore:
  """Keeps `store` until the process ends; loads `path`, if there is one, and saves it at the end.

  Raises ValueError as `load` does, FileNotFoundError for a folder that does not exist.
  """
  _KEPT.append(store)
  if path:
    if not Path(path).absolute().parent.is_dir():
      raise FileNotFoundError(f"there is no folder {str(Path(path).parent)!r} for the store")
    if Path(path).exists():
      store.load(path)
    atexit.register(store.save, path)
  return store
