"""The memory of a trie drafter on the host: prompts of running requests, outputs of all."""

import atexit
import collections
import functools
import itertools
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxtyping import Array, Int

from mtjax.draft import host
from mtjax.draft.model_free.trie_counts import Counts
from mtjax.draft.model_free.trie_settings import StoreSettings, TrieSettings
from mtjax.draft.trie_branches import (
  Branches,
  Matches,
  add_most_frequent,
  add_one_branch,
  add_side_by_side,
)
from mtjax.draft.trie_shared_file import SharedFile

_TEXT = "text"  # the name of the one text in a request's own counts


class _Request:
  """A running request: the n-grams of its own text, and its last tokens.

  Both lack the tokens of `unread`, which come behind those that were read and before all others.
  """

  __slots__ = ("counts", "last", "unread")

  def __init__(self, length: int, prompt: list[int]):
    self.counts = Counts(length)
    self.last: list[int] = []
    self.unread = prompt


class NgramStore:
  """N-grams of the outputs of all requests, and of each one's own text while it runs.

  `extend` counts an output's n-grams as they come, so that the next round finds them, among all
  outputs and in the request's own text. `finish` drops the latter. How drafts are chosen is up to
  the subclass. One process, any number of threads.
  """

  def __init__(self, vocab_size: int, vocabulary: str, settings: StoreSettings):
    """vocabulary: a string that tells it from others of its size (`Tokenizer.fingerprint`)."""
    if vocab_size < 1:
      raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    self.vocab_size, self.vocabulary, self.settings = vocab_size, vocabulary, settings
    self.counts = self._empty()
    self._files: dict[Path, SharedFile] = {}
    self._requests: dict[int, _Request] = {}
    self._generations: collections.deque[list[int]] = collections.deque()
    self._ids = itertools.count(1)
    self._lock = threading.RLock()

  @functools.cached_property
  def handle(self) -> Int[Array, ""]:
    """Parameters of the drafters that use this store. Keep the store while they do."""
    return host.register(self)

  # What a drafter calls.

  def begin(self, prompts: Iterable[Sequence[int]], *, late: bool = False) -> list[int]:
    """Returns unused numbers for new requests, one per prompt.

    late: a prompt is not read here, but when its request is first asked for drafts or told of
    tokens. A planned program may choose this store late or never, and then does not wait for it.
    """
    length = self.counts.length
    max_prompt = max(self.settings.prompt_nodes // length, length)
    with self._lock:
      ids = []
      for prompt in prompts:
        request = _Request(length, list(prompt[-max_prompt:]))
        if not late:
          self._learn(request, ())
        ids.append(next(self._ids))
        self._requests[ids[-1]] = request
      self._generations.append(ids)
      while len(self._generations) > self.settings.generations:
        for old in self._generations.popleft():
          self.finish(old)
      return ids

  def extend(self, request: int, tokens: Sequence[int]) -> None:
    """Counts output of a request; does nothing for one that has finished."""
    with self._lock:
      running = self._requests.get(request)
      if running is not None:
        self._learn(running, tokens)
        self._count(request, tokens)

  def read(self, request: int, tokens: Sequence[int]) -> None:
    """Counts text of a request for this request alone."""
    with self._lock:
      running = self._requests.get(request)
      if running is not None:
        self._learn(running, tokens)

  def finish(self, request: int) -> None:
    """Drops a request's own counts, and counts of outputs above the capacities."""
    with self._lock:
      if self._requests.pop(request, None) is not None:
        self._end(request)

  def draft(self, request: int, size: int, depth: int) -> Branches:
    """Returns up to `size` drafts, up to `depth` deep, that followed the text's last tokens."""
    out = Branches()
    with self._lock:
      running = self._requests.get(request)
      if running is not None and size > 0:
        if running.unread:
          self._learn(running, ())
        self.choose(out, running.counts, self._matches(running), size, depth)
    return out

  # What its owner calls.

  def warm(self, texts: Iterable[Sequence[int]]) -> None:
    """Counts texts of token ids as if they were outputs. Raises ValueError for ids out of range."""
    for number, text in enumerate(texts):
      tokens = [int(token) for token in text]
      if tokens and not (0 <= min(tokens) and max(tokens) < self.vocab_size):
        raise ValueError(f"text {number} has token ids outside 0..{self.vocab_size - 1}")
      with self._lock:
        self._count(_TEXT, tokens)
        self._end(_TEXT)

  def save(self, path: str | Path) -> None:
    """Writes the outputs' counts; a file of that name is replaced at once or not at all.

    If the store loaded, shared or saved that file before, and somebody else has written it since,
    what this store counted since is added to what the file holds now, and the store goes on with
    both: nobody's additions are lost. Raises ValueError if what somebody else wrote cannot be read
    or is of another vocabulary; the store's counts are then in a file beside it.
    """
    place = Path(path).resolve()
    with self._lock:
      file = self._files.get(place)
      if file is None:
        file = self._files[place] = SharedFile(path, self.settings.max_total)
        file.overwrite()
      counts = file.write(self.counts, self._empty(), self.vocab_size, self.vocabulary)
      if counts is not self.counts:
        self.counts = counts
        for other in self._files.values():
          if other is not file:
            other.distrust()

  def load(self, path: str | Path) -> None:
    """Replaces the counts by those of a file that `save` wrote.

    Raises ValueError for another vocabulary and for files that are damaged or something else.
    """
    file, counts = SharedFile(path, self.settings.max_total), self._empty()
    file.read(counts, self.vocab_size, self.vocabulary)
    with self._lock:
      self.counts, self._files = counts, {Path(path).resolve(): file}

  def share(self, path: str | Path) -> None:
    """Loads the file if there is one; if others make it before this store saves, both are kept."""
    if Path(path).exists():
      self.load(path)
    else:
      self._files[Path(path).resolve()] = SharedFile(path, self.settings.max_total)

  def emptied(self) -> "NgramStore":
    """Returns another store with the same settings, without counts, requests or files."""
    return type(self)(self.vocab_size, self.vocabulary, self.settings)

  def copy(self) -> "NgramStore":
    """Returns another store with the same counts of outputs, without requests or files."""
    out = self.emptied()
    with self._lock:
      out.counts = self.counts.copy()
    return out

  # What a subclass decides.

  def choose(self, out: Branches, own: Counts, matches: Matches, size: int, depth: int) -> None:
    """Adds up to `size` continuations of `matches`; `own` are the request's own counts."""
    raise NotImplementedError

  def _empty(self) -> Counts:
    fields = self.settings
    return Counts(
      fields.branch_length + 1, fields.tree_nodes, fields.max_total, fields.squeeze_after
    )

  def _count(self, text: int | str, tokens: Sequence[int]) -> None:
    self.counts.add(text, tokens)
    for file in self._files.values():
      file.additions.add(text, tokens)

  def _end(self, text: int | str) -> None:
    self.counts.end(text)
    for file in self._files.values():
      file.additions.end(text)

  def _learn(self, request: _Request, tokens: Sequence[int]) -> None:
    tokens, request.unread = [*request.unread, *tokens], []
    request.counts.add(_TEXT, tokens)
    request.last = [*request.last, *tokens][-self.settings.max_query :]

  def _matches(self, request: _Request) -> Matches:
    """Returns the nodes of the text's last tokens in the request's own trie and the shared one.

    Contexts that nothing ever followed are left out. A node without continuations stands beside one
    that has some, because its occurrences count for the context.
    """
    out = []
    for start in range(len(request.last)):
      tokens = request.last[start:]
      own, shared = request.counts.find(tokens), self.counts.find(tokens)
      pairs = (request.counts, own), (self.counts, shared)
      if any(node is not None and counts.children[node] for counts, node in pairs):
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
    weight, counts = self.settings.output_weight, (own, self.counts)
    weights = (1 - weight, weight)
    if self.settings.retrieval == "one":
      add_one_branch(out, counts, matches, weights, min(size, depth))
      return
    tree = out if self.settings.retrieval == "hier" else Branches()
    share = int(size * self.settings.output_share)
    for _, shared in matches:
      if shared is not None:
        add_most_frequent(tree, counts, (None, shared), (0.0, 1.0), share, depth)
    for pair in matches:
      add_most_frequent(tree, counts, pair, weights, size, depth)
    if tree is not out:
      add_side_by_side(out, tree)


_KEPT: list[NgramStore] = []


def open_store(path: str, store: NgramStore) -> NgramStore:
  """Keeps `store` until the process ends; loads `path`, if there is one, and saves it at the end.

  Several processes may have one file open: each begins with what it held then, and adds its own.

  Raises ValueError as `load` does, FileNotFoundError for a folder that does not exist.
  """
  _KEPT.append(store)
  if path:
    if not Path(path).absolute().parent.is_dir():
      raise FileNotFoundError(f"there is no folder {str(Path(path).parent)!r} for the store")
    store.share(path)
    atexit.register(store.save, path)
  return store
