"""A store's file that several processes read when they begin and write when they end."""

import collections
import contextlib
import os
from array import array
from collections.abc import Generator, Hashable, Sequence
from pathlib import Path

from mtjax.draft.model_free import trie_file
from mtjax.draft.model_free.trie_counts import Counts

try:
  import fcntl
except ImportError:  # Windows: two saves at the same moment are not kept apart
  fcntl = None


class SharedFile:
  """The counts of a store since it last read or wrote one file, and the state of that file then."""

  def __init__(self, path: str | Path, max_tokens: int):
    """max_tokens: largest number of counted tokens to keep; the oldest texts go first."""
    self.path, self._max_tokens = Path(path), max_tokens
    self._seen: trie_file.Stamp | None = None  # None: not read yet, or not there
    self.additions = Additions(max_tokens)

  def overwrite(self) -> None:
    """Allows the next `write` to replace what the file holds now."""
    self._seen = trie_file.stamp(self.path)

  def distrust(self) -> None:
    """Makes the next `write` merge: the store no longer has all that the file holds."""
    self._seen = None

  def read(self, into: Counts, vocab_size: int, vocabulary: str) -> None:
    """Adds the file's counts to empty ones; see `trie_file.read`."""
    self._seen = trie_file.read(self.path, into, vocab_size, vocabulary)

  def write(self, counts: Counts, empty: Counts, vocab_size: int, vocabulary: str) -> Counts:
    """Writes `counts`, or, if another wrote the file since, what it holds now and the additions.

    Returns what was written; `empty` is filled for the second. Raises ValueError if what another
    wrote cannot be read; `counts` are then in a file beside it, which the message names.
    """
    with _locked(self.path):
      now = trie_file.stamp(self.path)
      if now is not None and now != self._seen:
        try:
          trie_file.read(self.path, empty, vocab_size, vocabulary)
        except ValueError as error:
          beside = self.path.with_name(f"{self.path.stem}.{os.getpid()}{self.path.suffix}")
          trie_file.write(beside, counts, vocab_size, vocabulary)
          raise ValueError(f"{error}; the store was written to {str(beside)!r} instead") from None
        self.additions.replay(empty)
        counts = empty
      self._seen = trie_file.write(self.path, counts, vocab_size, vocabulary)
    self.additions = self.additions.after(counts.length - 1)
    return counts


class Additions:
  """Texts that were counted, four bytes a token, to be counted again elsewhere."""

  def __init__(self, max_tokens: int):
    self._max_tokens, self._tokens = max_tokens, 0
    self._running: dict[Hashable, array[int]] = {}
    self._known: dict[Hashable, int] = {}  # first tokens of running texts that are only context
    self._ended: collections.deque[tuple[array[int], int]] = collections.deque()

  def add(self, text: Hashable, tokens: Sequence[int]) -> None:
    self._running.setdefault(text, array("i")).extend(tokens)
    self._tokens += len(tokens)

  def end(self, text: Hashable) -> None:
    if text in self._running:
      self._ended.append((self._running.pop(text), self._known.pop(text, 0)))
    while self._tokens > self._max_tokens and len(self._ended) > 1:
      tokens, known = self._ended.popleft()
      self._tokens -= len(tokens) - known

  def replay(self, counts: Counts) -> None:
    """Counts everything; texts that run go on under their names."""
    for number, (tokens, known) in enumerate(self._ended):
      _count(counts, ("ended", number), tokens, known)
      counts.end(("ended", number))
    for text, tokens in self._running.items():
      _count(counts, text, tokens, self._known.get(text, 0))

  def after(self, context: int) -> "Additions":
    """Returns what follows these: the last `context` tokens of running texts are known."""
    out = Additions(self._max_tokens)
    out._running = {text: tokens[-context:] for text, tokens in self._running.items()}
    out._known = {text: len(tokens) for text, tokens in out._running.items()}
    return out


def _count(counts: Counts, text: Hashable, tokens: Sequence[int], known: int) -> None:
  counts.resume(text, tokens[:known])
  counts.add(text, tokens[known:])


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
  """Waits for whoever saves there. The system gives the lock back should its process die."""
  if fcntl is None:
    yield
    return
  lock = path.with_name(f"{path.name}.lock")
  while True:
    with open(lock, "ab") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      if not _is(lock, file.fileno()):
        continue  # whoever had it took it away
      try:
        yield
      finally:
        lock.unlink(missing_ok=True)
      return


def _is(path: Path, number: int) -> bool:
  try:
    return os.path.samestat(os.stat(path), os.fstat(number))
  except FileNotFoundError:
    return False
