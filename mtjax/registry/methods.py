"""The table of all methods of decoding and filling, with their exactness, files and tests.

The tables of README.md and docs/methods.md are made from this one by `python -m docs.make.methods`;
a test fails for a row without a file, config or test.
"""

from typing import Any

from mtjax.draft import (
  S2D,
  BestFirst,
  CrossVocabulary,
  GrownTree,
  Jacobi,
  ModelCanvas,
  ModelChain,
  ModelTree,
  PromptLookup,
  RatedTrie,
  Recycling,
  SelfS2D,
  SuffixSettings,
  SuffixStore,
  TrieSettings,
  TrieStore,
)
from mtjax.registry.denoising.methods import DENOISERS
from mtjax.registry.drafters import (
  Entry,
  of_settings,
  of_vocabulary,
  with_draft_model,
  with_masked_model,
  with_other_vocabulary,
  with_store,
  with_target,
)
from mtjax.registry.fill_methods import FillEntry
from mtjax.registry.fill_rows import FILL_ROWS, get_fill_entry
from mtjax.registry.rows import MethodRow
from mtjax.types import Exactness

DRAFT_MODEL = "speculative, draft model"  # the family of methods that need one

METHODS: dict[str, MethodRow] = {
  "ar": MethodRow(
    title="autoregressive",
    family="plain",
    pays="The reference: every other method is measured against it.",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode/generation.py",
    config="configs/decode/ar.py",
    test="tests/core/test_sampled_texts.py",
  ),
  "auto": MethodRow(
    title="speculates while it saves time",
    family="speculative",
    pays="Text of which it is not known whether it repeats itself: each round verifies as many "
    "drafts as pay, and with drafts of `suffix` (`auto:suffix`) it was the fastest on SmolLM2.",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode/adaptive.py",
    config="configs/decode/auto.py",
    test="tests/draft/test_adaptive.py",
  ),
  "lookup": MethodRow(
    title="prompt lookup",
    how="Prompt lookup: copies what followed the last tokens earlier in the text. Several "
    "matches are merged into a tree.",
    family="speculative, no draft model",
    pays="Greedy decoding of text that repeats itself or its prompt, such as changed code and "
    "summaries.",
    paper="prompt-lookup-decoding; 2312.12728",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/lookup.py",
    config="configs/decode/lookup.py",
    test="tests/draft/test_speculative.py",
    drafter=of_settings(PromptLookup),
  ),
  "trie": MethodRow(
    title="Lookahead's trie",
    how="What followed the last tokens before, in the text of the request and in the "
    "outputs of all requests that share its store.",
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
    how="As `trie`, with the same counts ranked by probability.",
    family="speculative, no draft model",
    pays="As `trie`, with more tokens per forward pass: on average the fastest drafts on SmolLM2.",
    paper="2411.04975",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/suffix.py",
    config="configs/decode/suffix.py",
    test="tests/draft/test_suffix.py",
    drafter=with_store(SuffixStore, SuffixSettings, RatedTrie),
  ),
  "draft": MethodRow(
    title="draft model, chain",
    how="A chain of a draft model, as long as the draft model is confident.",
    family=DRAFT_MODEL,
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
    how="A tree of a draft model of any shape, those of Medusa and EAGLE among them. "
    "Siblings are sampled with or without replacement, greedily and one, or as the "
    "pairs of SpecHub.",
    family=DRAFT_MODEL,
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
    title="draft model, its most probable paths",
    how="The most probable paths of a draft model (EAGLE-2, OPT-Tree).",
    family=DRAFT_MODEL,
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
    title="draft model, a tree grown as it is sampled",
    how="A tree of a draft model that grows where the tokens sampled so far make it worth "
    "while (DySpec).",
    family=DRAFT_MODEL,
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
    how="Keeps the most probable successors that the target last gave to every token, "
    "accepted or not, and drafts a fixed tree of them.",
    family="speculative, no draft model",
    pays="Greedy decoding without a draft model; on SmolLM2 it gained nothing on average.",
    paper="2408.08696",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model_free/recycling.py",
    config="configs/decode/recycling.py",
    test="tests/draft/test_speculative.py",
    drafter=of_vocabulary(Recycling),
  ),
  "jacobi": MethodRow(
    title="lookahead decoding: Jacobi window and n-gram pool",
    how="Lookahead decoding: a window of guesses is part of the same forward pass and "
    "fills a pool of n-grams. It adds (N - 1)(W + G) entries per round.",
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
    how="One draft model that was trained to be left after any of several layers (S2D). "
    "It serves every target of its vocabulary.",
    family=DRAFT_MODEL,
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
    how="The first layers of the target itself, on the cache of the target.",
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
    how="A draft model with another tokenizer.",
    family=DRAFT_MODEL,
    pays="Where the only draft model has another tokenizer; not measured yet.",
    paper="transformers' universal assisted generation",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/cross_vocabulary.py",
    config="configs/decode/cross_vocabulary.py",
    test="tests/draft/test_cross_vocabulary.py",
    drafter=with_other_vocabulary(CrossVocabulary),
    draft_model="models/shakespeare",
  ),
  "canvas": MethodRow(
    title="masked draft model, all drafts from one pass",
    how="Masks stand after the text, and a masked model says what is behind all of them in one "
    "forward pass.",
    family=DRAFT_MODEL,
    pays="Where the only draft model is a masked one; not measured yet.",
    paper="2408.05636",
    exactness=Exactness.LOSSLESS,
    file="mtjax/draft/model/canvas.py",
    config="configs/decode/canvas.py",
    test="tests/draft/test_canvas.py",
    drafter=with_masked_model(ModelCanvas),
    verifier="block",
    draft_model="masked",
  ),
  **FILL_ROWS,
}


DRAFTERS: dict[str, Entry] = {
  name: row.drafter for name, row in METHODS.items() if row.drafter is not None
}


def decoding() -> dict[str, MethodRow]:
  """Returns the rows of the methods that decode, by name."""
  return {name: row for name, row in METHODS.items() if row.fill is None}


def filling() -> dict[str, MethodRow]:
  """Returns the rows of the methods that fill canvases, by name."""
  return {name: row for name, row in METHODS.items() if row.fill is not None}


def check_method(name: str) -> None:
  """Raises ValueError, with the known names, for anything but a method that decodes."""
  if name in filling():
    raise ValueError(f"method {name!r} fills blanks: run it as mtjax-infill --method={name}")
  if name in DENOISERS:
    raise ValueError(
      f"method {name!r} denoises canvases: run it as mtjax-decode --config={name}, or "
      f"give mtjax.denoiser({name!r}) to TextModel.denoise"
    )
  if name not in METHODS:
    raise ValueError(
      f"method {name!r} is not one of: {', '.join(decoding())}; those that denoise are: "
      f"{', '.join(DENOISERS)}"
    )


def get_fill_method(name: str) -> FillEntry:
  """Returns the entry that makes a fill method.

  Raises ValueError, with the known names, for others.
  """
  if name in decoding():
    raise ValueError(f"method {name!r} decodes: mtjax-decode takes it, as --config={name}")
  return get_fill_entry(name)


def get_drafter(name: str) -> Entry:
  """Returns the entry that makes a drafter. Raises ValueError, with the known names, for others."""
  row = METHODS.get(name)
  if row is None or row.drafter is None:
    raise ValueError(f"drafter {name!r} is not one of: {', '.join(DRAFTERS)}")
  return row.drafter


def drafter_settings(name: str) -> dict[str, Any]:
  """Returns the settings of a drafter with their defaults, as configs have them.

  Raises ValueError as `get_drafter` does.
  """
  return {**get_drafter(name).settings, **METHODS[name].settings}
