"""Every decoding method there is: what it keeps, where it stands, what proves it.

README's table is made from this one, and a test fails for a row without a file, config or test.
"""

import dataclasses

from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class MethodRow:
  """One row of the method table. Paths are relative to the repository."""

  title: str
  paper: str
  exactness: Exactness
  file: str
  config: str
  test: str


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
  ),
  "trie": MethodRow(
    title="Lookahead's trie",
    paper="2312.12728",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/trie.py",
    config="configs/decode/trie.py",
    test="tests/draft/test_trie_store.py",
  ),
  "suffix": MethodRow(
    title="suffix counts",
    paper="2411.04975",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/suffix.py",
    config="configs/decode/suffix.py",
    test="tests/draft/test_suffix.py",
  ),
  "draft": MethodRow(
    title="draft model, chain",
    paper="2211.17192, 2302.01318",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/chain.py",
    config="configs/decode/draft.py",
    test="tests/draft/test_speculative.py",
  ),
  "draft_tree": MethodRow(
    title="draft model, tree of a fixed shape",
    paper="2305.09781, 2402.12374",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/fixed_tree.py",
    config="configs/decode/draft_tree.py",
    test="tests/draft/test_model_tree_law.py",
  ),
  "best_first": MethodRow(
    title="draft model, its likeliest paths",
    paper="2406.16858, 2406.17276",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/best_first.py",
    config="configs/decode/best_first.py",
    test="tests/draft/test_speculative.py",
  ),
  "grown_tree": MethodRow(
    title="draft model, a tree grown as it is drawn",
    paper="2410.11744",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/grown_tree.py",
    config="configs/decode/grown_tree.py",
    test="tests/trees/test_growth.py",
  ),
  "recycling": MethodRow(
    title="token recycling",
    paper="2408.08696",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/recycling.py",
    config="configs/decode/recycling.py",
    test="tests/draft/test_speculative.py",
  ),
  "jacobi": MethodRow(
    title="lookahead decoding: Jacobi window and n-gram pool",
    paper="2402.02057",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/jacobi.py",
    config="configs/decode/jacobi.py",
    test="tests/draft/test_jacobi.py",
  ),
  "sorted": MethodRow(
    title="sorted draft model, left early (S2D)",
    paper="2407.01955",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/s2d.py",
    config="configs/decode/sorted.py",
    test="tests/draft/test_sorted.py",
  ),
  "self_sorted": MethodRow(
    title="the target's own first layers, left early",
    paper="2407.01955, 2404.16710",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/s2d.py",
    config="configs/decode/self_sorted.py",
    test="tests/draft/test_sorted.py",
  ),
  "cross_vocabulary": MethodRow(
    title="draft model with another tokenizer",
    paper="transformers' universal assisted generation",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/cross_vocabulary.py",
    config="configs/decode/cross_vocabulary.py",
    test="tests/draft/test_cross_vocabulary.py",
  ),
}


def check_method(name: str) -> None:
  """Raises ValueError, with the names there are, for anything but a method or a drafter."""
  from mtjax.registry.drafters import DRAFTERS

  if name not in METHODS and name not in DRAFTERS:
    every = ", ".join(dict.fromkeys((*METHODS, *DRAFTERS)))
    raise ValueError(f"unknown method {name!r}; there is: {every}")


def table() -> str:
  """The method table in Markdown."""
  lines = ["| method | paper | exactness | file | config | test |", "|---|---|---|---|---|---|"]
  for name, m in METHODS.items():
    cells = (f"{m.title} (`{name}`)", m.paper, m.exactness.value)
    paths = (f"`{path}`" for path in (m.file, m.config, m.test))
    lines.append(f"| {' | '.join((*cells, *paths))} |")
  return "\n".join(lines)
