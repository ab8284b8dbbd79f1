"""Settings of the stores that retrieve drafts: how much they keep, how they choose."""

import dataclasses

from mtjax.draft.trie_branches import RETRIEVALS

_AT_LEAST_1 = (
  *("branch_length", "max_query", "tree_nodes", "squeeze_after", "max_total", "prompt_nodes"),
  "generations",
)


@dataclasses.dataclass(frozen=True)
class StoreSettings:
  """Counts are those of the n-grams of up to branch_length + 1 tokens.

  Capacities are kept when a request ends (see `Counts`): a store holds at most `max_total` nodes
  and what running requests have added since. The paper's authors have 512 for `tree_nodes`, with
  which more warm-up may cost 1 % (results/trie_capacities.json), and no limit in all. Their limit
  of 65,536 nodes per first token counts prompts and outputs together; prompts cannot reach it here:
  their counts are their own, and end with them.
  """

  branch_length: int = 12
  max_query: int = 2  # tokens largest number of last tokens that are looked up
  output_weight: float = 1e-4  # weight of an occurrence in all outputs, beside one in the own text
  tree_nodes: int = 4096  # of outputs, for one first token: a tree with more is squeezed, ...
  squeeze_after: int = 1024  # ... at the end of a request, once so many trees were updated
  max_total: int = 2**20  # nodes of outputs in all, 300 to 400 bytes each
  prompt_nodes: int = 65536  # a prompt's last tokens count, as many as surely fit in as much
  generations: int = 8  # whose requests are kept: the oldest goes, unless it said that it ended

  def __post_init__(self):
    for name in _AT_LEAST_1:
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
  """Settings of the paper (2312.12728): (1 - w) f_input + w f_output ranks, w = output_weight."""

  output_share: float = 0.5  # share of drafts chosen by output frequency alone
  # "hier": branches with common prefixes merged; "par": the same branches side by side; "one": a
  # single branch. The last two exist for comparison.
  retrieval: str = "hier"

  def __post_init__(self):
    super().__post_init__()
    if self.retrieval not in RETRIEVALS:
      raise ValueError(f"retrieval must be one of {', '.join(RETRIEVALS)}, got {self.retrieval!r}")
    if not 0 <= self.output_share <= 1:
      raise ValueError(f"output_share must be between 0 and 1, got {self.output_share}")
