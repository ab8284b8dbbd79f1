"""Every decoding method there is: what it keeps, where it stands, what proves it.

README's table is made from this one, and a test fails for a row without a file, config or test.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtjax.draft import (
  BestFirst,
  CrossVocabulary,
  GrownTree,
  Jacobi,
  ModelChain,
  ModelTree,
  PromptLookup,
  Recycling,
  SelfSorted,
  Sorted,
  SuffixSettings,
  SuffixStore,
  TrieSettings,
  TrieStore,
)
from mtjax.registry.drafters import (
  Entry,
  of_settings,
  of_vocabulary,
  with_draft_model,
  with_other_vocabulary,
  with_store,
  with_target,
)
from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class MethodRow:
  """One row: all that there is to say of a method. Paths are relative to the repository.

  A row with a drafter makes it known to every launcher, comparison, table and proof.
  """

  title: str
  paper: str
  exactness: Exactness
  file: str
  config: str = "configs/decode/drafter.py"  # of any drafter
  test: str = "tests/draft/test_speculative.py"  # of every drafter
  drafter: Entry | None = None
  # What configs begin with: the verifier, a draft model where one is taken, and settings of the
  # drafter other than its own defaults.
  verifier: str = "sample_match"
  draft_model: str = "draft"
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


METHODS = {
  "ar": MethodRow(
    title="autoregressive",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode/generation.py",
    config="configs/decode/ar.py",
    test="tests/core/test_law.py",
  ),
  "auto": MethodRow(
    title="speculates while it pays",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode/adaptive.py",
    config="configs/decode/auto.py",
    test="tests/draft/test_adaptive.py",
  ),
  "lookup": MethodRow(
    title="prompt lookup",
    paper="prompt-lookup-decoding; 2312.12728",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/lookup.py",
    config="configs/decode/lookup.py",
    test="tests/draft/test_speculative.py",
    drafter=of_settings(PromptLookup),
  ),
  "trie": MethodRow(
    title="Lookahead's trie",
    paper="2312.12728",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/trie.py",
    config="configs/decode/trie.py",
    test="tests/draft/test_trie_store.py",
    drafter=with_store(TrieStore, TrieSettings),
  ),
  "suffix": MethodRow(
    title="suffix counts",
    paper="2411.04975",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/suffix.py",
    config="configs/decode/suffix.py",
    test="tests/draft/test_suffix.py",
    drafter=with_store(SuffixStore, SuffixSettings),
  ),
  "draft": MethodRow(
    title="draft model, chain",
    paper="2211.17192, 2302.01318",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/chain.py",
    config="configs/decode/draft.py",
    test="tests/draft/test_speculative.py",
    drafter=with_draft_model(ModelChain),
    verifier="block",
  ),
  "draft_tree": MethodRow(
    title="draft model, tree of a fixed shape",
    paper="2305.09781, 2402.12374",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/fixed_tree.py",
    config="configs/decode/draft_tree.py",
    test="tests/draft/test_model_tree_law.py",
    drafter=with_draft_model(ModelTree.of_names),
    verifier="traversal",
  ),
  "best_first": MethodRow(
    title="draft model, its likeliest paths",
    paper="2406.16858, 2406.17276",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/best_first.py",
    config="configs/decode/best_first.py",
    test="tests/draft/test_speculative.py",
    drafter=with_draft_model(BestFirst),
  ),
  "grown_tree": MethodRow(
    title="draft model, a tree grown as it is drawn",
    paper="2410.11744",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/grown_tree.py",
    config="configs/decode/grown_tree.py",
    test="tests/trees/test_growth.py",
    drafter=with_draft_model(GrownTree),
    verifier="traversal",
  ),
  "recycling": MethodRow(
    title="token recycling",
    paper="2408.08696",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/recycling.py",
    config="configs/decode/recycling.py",
    test="tests/draft/test_speculative.py",
    drafter=of_vocabulary(Recycling),
  ),
  "jacobi": MethodRow(
    title="lookahead decoding: Jacobi window and n-gram pool",
    paper="2402.02057",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/jacobi.py",
    config="configs/decode/jacobi.py",
    test="tests/draft/test_jacobi.py",
    drafter=of_settings(Jacobi),
  ),
  "sorted": MethodRow(
    title="sorted draft model, left early (S2D)",
    paper="2407.01955",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/s2d.py",
    config="configs/decode/sorted.py",
    test="tests/draft/test_sorted.py",
    drafter=with_draft_model(Sorted),
    verifier="block",
    draft_model="sorted",
  ),
  "self_sorted": MethodRow(
    title="the target's own first layers, left early",
    paper="2407.01955, 2404.16710",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/s2d.py",
    config="configs/decode/self_sorted.py",
    test="tests/draft/test_sorted.py",
    drafter=with_target(SelfSorted),
    verifier="block",
    # The bundled target was not trained with exits.
    settings=dict(exits=(3, 5)),
  ),
  "cross_vocabulary": MethodRow(
    title="draft model with another tokenizer",
    paper="transformers' universal assisted generation",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/cross_vocabulary.py",
    config="configs/decode/cross_vocabulary.py",
    test="tests/draft/test_cross_vocabulary.py",
    drafter=with_other_vocabulary(CrossVocabulary),
    draft_model="models/shakespeare",
  ),
}


DRAFTERS: dict[str, Entry] = {
  name: row.drafter for name, row in METHODS.items() if row.drafter is not None
}


def check_method(name: str) -> None:
  """Raises ValueError, with the names there are, for anything but a method."""
  if name not in METHODS:
    raise ValueError(f"unknown method {name!r}; there is: {', '.join(METHODS)}")


def get_drafter(name: str) -> Entry:
  """Returns how a drafter is made. Raises ValueError, with the names there are, for others."""
  row = METHODS.get(name)
  if row is None or row.drafter is None:
    raise ValueError(f"no drafter {name!r}; there are {', '.join(DRAFTERS)}")
  return row.drafter


def drafter_settings(name: str) -> dict[str, Any]:
  """Returns the settings of a drafter with their defaults, as configs show them.

  Raises ValueError as `get_drafter` does.
  """
  return {**get_drafter(name).settings, **METHODS[name].settings}


def table() -> str:
  """The method table in Markdown."""
  lines = ["| method | paper | exactness | file | config | test |", "|---|---|---|---|---|---|"]
  for name, m in METHODS.items():
    cells = (f"{m.title} (`{name}`)", m.paper, m.exactness.value)
    paths = (f"`{path}`" for path in (m.file, m.config, m.test))
    lines.append(f"| {' | '.join((*cells, *paths))} |")
  return "\n".join(lines)
