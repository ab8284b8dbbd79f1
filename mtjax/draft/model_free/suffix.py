"""Drafts by estimated probability: contexts of every length count, the longest first."""

import dataclasses
import heapq
from operator import itemgetter

from mtjax.draft.model_free.trie_counts import Counts
from mtjax.draft.model_free.trie_settings import StoreSettings
from mtjax.draft.model_free.trie_store import NgramStore
from mtjax.draft.trie_branches import Branches, Matches


@dataclasses.dataclass(frozen=True)
class SuffixSettings(StoreSettings):
  """Settings of suffix drafts; `escape` is the count that a context leaves to shorter ones."""

  branch_length: int = 15
  max_query: int = 4
  output_weight: float = 0.1
  escape: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    if not self.escape > 0:
      raise ValueError(f"escape must be above 0, got {self.escape}")


class SuffixStore(NgramStore):
  """Suffix counts of the own text and of all outputs (as SuffixDecoding 2411.04975 has them).

  A tree of the drafts that are, by the counts, most probably on the target's path. Where
  SuffixDecoding scores with the counts of one match, here all matches are blended as in
  prediction by partial matching: a context that occurred n times, outputs weighted, gives a token
  that followed it c times c / (n + escape); the rest is shared out by the next shorter context.
  """

  settings: SuffixSettings

  def __init__(
    self, vocab_size: int, vocabulary: str = "", settings: SuffixSettings = SuffixSettings()
  ):
    super().__init__(vocab_size, vocabulary, settings)

  def choose(self, out: Branches, own: Counts, matches: Matches, size: int, depth: int) -> None:
    """Adds drafts by falling probability, which falls along a path: ancestors are in.

    Of the outputs that follow a context, the `size` most frequent are looked at.
    """
    heap: list = []
    place = ticket = 0
    mass = 1.0
    while out.drafts < size:
      if out.depth[place] < depth:
        probs = self._probs(own, matches, mass, size)
        best = sorted(probs.items(), key=itemgetter(1), reverse=True)
        for token, score in best[: size - out.drafts]:
          ticket += 1
          heapq.heappush(heap, (-score, ticket, place, token, matches))
      if not heap:
        break
      score, _, place, token, matches = heapq.heappop(heap)
      mass = -score
      place = out.below(place, token, mass)
      matches = self._after(own, matches, token)

  def _probs(
    self, own: Counts, matches: Matches, mass: float, max_children: int
  ) -> dict[int, float]:
    """Returns token -> its share of `mass`, the probability of what it follows."""
    shared, weight, escape = self.counts, self.settings.output_weight, self.settings.escape
    probs: dict[int, float] = {}
    for mine, theirs in matches:
      total = escape
      if mine is not None:
        total += own.count[mine]
      if theirs is not None:
        total += weight * shared.count[theirs]
      scale = mass / total
      if mine is not None:
        for token, child in own.children[mine].items():
          probs[token] = probs.get(token, 0.0) + scale * own.count[child]
      if theirs is not None:
        for child in shared.ranked(theirs)[:max_children]:
          token = shared.token[child]
          probs[token] = probs.get(token, 0.0) + scale * weight * shared.count[child]
      mass = scale * escape
    return probs

  def _after(self, own: Counts, matches: Matches, token: int) -> Matches:
    """Returns the nodes one token further."""
    out = []
    for mine, theirs in matches:
      mine = None if mine is None else own.children[mine].get(token)
      theirs = None if theirs is None else self.counts.children[theirs].get(token)
      if mine is not None or theirs is not None:
        out.append((mine, theirs))
    return out
