"""The table of all decoding methods: exactness, file, config and test of each.

The tables of README.md and docs/methods.md are made from this one by `python -m docs.make.methods`;
a test fails for a row without a file, config or test.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtjax.draft import (
  S2D,
  BestFirst,
  CrossVocabulary,
  GrownTree,
  Jacobi,
  ModelChain,
  ModelTree,
  PromptLookup,
  Recycling,
  SelfS2D,
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
  """One method of the table. Paths are relative to the repository.

  A row with a drafter makes it known to every launcher, comparison, table and proof. `pays` is one
  sentence about when the method is worth its cost; docs/benchmarks.md holds what backs it.
  """

  title: str
  paper: str
  exactness: Exactness
  file: str
  config: str = "configs/decode/drafter.py"  # the same for every drafter
  test: str = "tests/draft/test_speculative.py"  # the same for every drafter
  family: str = "speculative"
  pays: str = "Not measured yet."
  drafter: Entry | None = None
  # What configs begin with: the verifier, a draft model where one is taken, and settings of the
  # drafter other than its own defaults.
  verifier: str = "sample_match"
  draft_model: str = "draft"
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


METHODS = {
  "ar": MethodRow(
    title="autoregressive",
    family="plain",
    pays="Sampling where no draft model is at hand: every other method is measured against it.",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode/generation.py",
    config="configs/decode/ar.py",
    test="tests/core/test_sampled_texts.py",
  ),
  "auto": MethodRow(
    title="speculates while it pays",
    family="speculative",
    pays="Text of which it is not known whether it repeats itself: it stops drafting when "
    "that costs time.",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode/adaptive.py",
    config="configs/decode/auto.py",
    test="tests/draft/test_adaptive.py",
  ),
  "lookup": MethodRow(
    title="prompt lookup",
    family="speculative, no draft model",
    pays="Greedy decoding of text that repeats itself or its prompt.",
    paper="prompt-lookup-decoding; 2312.12728",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/lookup.py",
    config="configs/decode/lookup.py",
    test="tests/draft/test_speculative.py",
    drafter=of_settings(PromptLookup),
  ),
  "trie": MethodRow(
    title="Lookahead's trie",
    family="speculative, no draft model",
    pays="Greedy decoding of many requests that resemble each other, such as tool calls.",
    paper="2312.12728",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/trie.py",
    config="configs/decode/trie.py",
    test="tests/draft/test_trie_store.py",
    drafter=with_store(TrieStore, TrieSettings),
  ),
  "suffix": MethodRow(
    title="suffix counts",
    family="speculative, no draft model",
    pays="As `trie`: it emits more tokens per forward pass, and was about as fast.",
    paper="2411.04975",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/suffix.py",
    config="configs/decode/suffix.py",
    test="tests/draft/test_suffix.py",
    drafter=with_store(SuffixStore, SuffixSettings),
  ),
  "draft": MethodRow(
    title="draft model, chain",
    family="speculative, draft model",
    pays="Sampling at temperature 1 too: on average it was faster than `ar` there, where "
    "copied drafts were slower.",
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
    family="speculative, draft model",
    pays="Where a large forward pass costs little more than a small one; on the CPU measured "
    "it did not pay.",
    paper="2305.09781, 2402.12374",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/fixed_tree.py",
    config="configs/decode/draft_tree.py",
    test="tests/draft/test_model_tree_distribution.py",
    drafter=with_draft_model(ModelTree.of_names),
    verifier="traversal",
  ),
  "best_first": MethodRow(
    title="draft model, its likeliest paths",
    family="speculative, draft model",
    pays="Where a large forward pass costs little more than a small one; on the CPU measured "
    "it did not pay.",
    paper="2406.16858, 2406.17276",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/best_first.py",
    config="configs/decode/best_first.py",
    test="tests/draft/test_speculative.py",
    drafter=with_draft_model(BestFirst),
  ),
  "grown_tree": MethodRow(
    title="draft model, a tree grown as it is drawn",
    family="speculative, draft model",
    pays="Where a large forward pass costs little more than a small one; on the CPU measured "
    "it did not pay.",
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
    family="speculative, no draft model",
    pays="Greedy decoding without a draft model: it was faster than `ar` on every set of prompts.",
    paper="2408.08696",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/recycling.py",
    config="configs/decode/recycling.py",
    test="tests/draft/test_speculative.py",
    drafter=of_vocabulary(Recycling),
  ),
  "jacobi": MethodRow(
    title="lookahead decoding: Jacobi window and n-gram pool",
    family="speculative, no draft model",
    pays="Where a large forward pass costs little more than a small one; on the CPU measured "
    "it did not pay.",
    paper="2402.02057",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/jacobi.py",
    config="configs/decode/jacobi.py",
    test="tests/draft/test_jacobi.py",
    drafter=of_settings(Jacobi),
  ),
  "sorted": MethodRow(
    title="sorted draft model, left early (S2D)",
    family="speculative, draft model",
    pays="Several targets with one vocabulary: one draft model serves all, with less memory "
    "than one for each.",
    paper="2407.01955",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/s2d.py",
    config="configs/decode/sorted.py",
    test="tests/draft/test_sorted.py",
    drafter=with_draft_model(S2D),
    verifier="block",
    draft_model="sorted",
  ),
  "self_sorted": MethodRow(
    title="the target's own first layers, left early",
    family="speculative, own layers",
    pays="A target that was trained to be left early; not measured yet.",
    paper="2407.01955, 2404.16710",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/s2d.py",
    config="configs/decode/self_sorted.py",
    test="tests/draft/test_sorted.py",
    drafter=with_target(SelfS2D),
    verifier="block",
    # The bundled target was not trained with exits.
    settings=dict(exits=(3, 5)),
  ),
  "cross_vocabulary": MethodRow(
    title="draft model with another tokenizer",
    family="speculative, draft model",
    pays="Where the only draft model has another tokenizer; not measured yet.",
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
  """Raises ValueError, which lists the known names, for anything but a method."""
  if name not in METHODS:
    raise ValueError(f"unknown method {name!r}; there is: {', '.join(METHODS)}")


def get_drafter(name: str) -> Entry:
  """Returns how a drafter is made. Raises ValueError, which lists the known names, for others."""
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
  """Returns the whole method table in Markdown, with links to the papers."""
  rows = [
    (f"{m.title} (`{name}`)", m.family, linked(m.paper), m.exactness.value)
    + tuple(f"`{path}`" for path in (m.file, m.config, m.test))
    for name, m in METHODS.items()
  ]
  return markdown(("method", "family", "paper", "exactness", "file", "config", "test"), rows)


def short_table() -> str:
  """Returns the method table of README.md in Markdown: what to choose, and when."""
  rows = [
    (f"{m.title} ([`{name}`]({m.config}))", m.family, m.exactness.value, m.pays)
    for name, m in METHODS.items()
  ]
  return markdown(("method", "family", "exactness", "when it pays"), rows)


def linked(paper: str) -> str:
  """Returns the text with every arXiv number in it as a link."""
  return re.sub(r"\b\d{4}\.\d{5}\b", r"[\g<0>](https://arxiv.org/abs/\g<0>)", paper)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a Markdown table."""
  lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
  return "\n".join((lines[0], "|" + "---|" * len(header), *lines[1:]))
