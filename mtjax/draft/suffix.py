"""Drafts by estimated probability: contexts of every length have a say, the longest first."""

import dataclasses
import heapq
from operator import itemgetter

from mtjax.draft.trie_counts import Node
from mtjax.draft.trie_store import Branches, Matches, NgramStore, StoreSettings

_SCORE = itemgetter(1)


@dataclasses.dataclass(frozen=True)
class SuffixSettings(StoreSettings):
  """`escape`: what a context counts for what never followed it; it goes to shorter contexts."""

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

  A tree of the drafts that are likeliest, by the counts, to be on the target's path. Where
  SuffixDecoding scores with the counts of one match, here all matches are blended as in
  prediction by partial matching: a context that occurred n times, outputs weighted, gives a token
  that followed it c times c / (n + escape); the rest is shared out by the next shorter context.
  """

  settings: SuffixSettings

  def __init__(
    self, vocab_size: int, vocabulary: str = "", settings: SuffixSettings = SuffixSettings()
  ):
    super().__init__(vocab_size, vocabulary, settings)

  def choose(self, out: Branches, matches: Matches, size: int, depth: int) -> None:
    likeliest(out, matches, size, depth, self.settings.output_weight, self.settings.escape)


def likeliest(
  out: Branches, matches: Matches, most: int, depth: int, weight: float, escape: float
) -> None:
  """Adds `most` paths by falling probability, which falls along a path: ancestors are in.

  Of the outputs that follow a context, the `most` most frequent are looked at.
  """
  heap: list = []
  place = ticket = 0
  mass = 1.0
  while out.drafts < most:
    if out.depth[place] < depth:
      best = sorted(_law(matches, mass, most, weight, escape).items(), key=_SCORE, reverse=True)
      for token, score in best[: most - out.drafts]:
        ticket += 1
        heapq.heappush(heap, (-score, ticket, place, token, matches))
    if not heap:
      break
    score, _, place, token, matches = heapq.heappop(heap)
    mass = -score
    place = out.below(place, token)
    matches = [pair for pair in (_after(pair, token) for pair in matches) if pair != (None, None)]


def _law(matches: Matches, mass: float, most: int, weight: float, escape: float):
  """token -> its share of `mass`."""
  law: dict[int, float] = {}
  for own, shared in matches:
    total = escape
    if own is not None:
      total += own.count
    if shared is not None:
      total += weight * shared.count
    if own is not None:
      for token, child in own.children.items():
        law[token] = law.get(token, 0.0) + mass / total * child.count
    if shared is not None:
      scale = mass / total * weight
      for child in shared.ranked()[:most]:
        law[child.token] = law.get(child.token, 0.0) + scale * child.count
    mass *= escape / total
  return law


def _after(pair: tuple[Node | None, Node | None], token: int) -> tuple[Node | None, Node | None]:
  own, shared = pair
  return (
    None if own is None else own.children.get(token),
    None if shared is None else shared.children.get(token),
  )
