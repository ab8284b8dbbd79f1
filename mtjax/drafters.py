"""Every drafter by name: how a config becomes one. Adding a drafter: a file, a line, a test row."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PyTree

from mtjax.draft import (
  BestFirst,
  CrossVocabulary,
  Drafter,
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
  Trie,
  TrieSettings,
  TrieStore,
)
from mtjax.draft.trie_store import open_store
from mtjax.text import TextModel

# (config of configs/decode, target) -> the drafter and its parameters.
Build = Callable[[Mapping[str, Any], TextModel], tuple[Drafter, PyTree]]


def of_settings(drafter: Callable[..., Drafter]) -> Build:
  """A drafter that is made of config.drafter alone."""
  return lambda config, target: (drafter(**config.get("drafter", {})), None)


def of_vocabulary(drafter: Callable[..., Drafter]) -> Build:
  """A drafter that takes the size of the target's vocabulary first, then config.drafter."""

  def build(config, target):
    return drafter(target.model.config.vocab_size, **config.get("drafter", {})), None

  return build


def with_draft_model(drafter: Callable[..., Drafter]) -> Build:
  """A drafter that takes a model first: config.draft_model, in the target's vocabulary."""

  def build(config, target):
    from mtjax.presets import load_pretrained, weights_for_decoding

    draft = load_pretrained(config["draft_model"])
    check_vocabulary(draft, target, config["draft_model"])
    params = weights_for_decoding(draft.params, config["weights"])
    return drafter(draft.model, **config.get("drafter", {})), params

  return build


def with_store(store: Callable[..., Any], settings: Callable[..., Any]) -> Build:
  """`Trie` with a store of its own, kept in the file config.drafter.store from run to run."""

  def build(config, target):
    fields = dict(config.get("drafter", {}))
    path = fields.pop("store", "")
    of_drafter = {name: fields.pop(name) for name in ("size", "depth") if name in fields}
    drafter, vocabulary = Trie(**of_drafter), target.tokenizer.fingerprint()
    made = store(target.model.config.vocab_size, vocabulary, settings(**fields))
    return drafter, open_store(path, made).handle

  return build


def with_target(drafter: Callable[..., Drafter]) -> Build:
  """A drafter that runs the target itself: takes its model first, and its parameters."""

  def build(config, target):
    return drafter(target.model, **config.get("drafter", {})), target.params

  return build


def with_other_vocabulary(config: Mapping[str, Any], target: TextModel) -> tuple[Drafter, PyTree]:
  """`CrossVocabulary` with config.draft_model, which has a tokenizer of its own."""
  from mtjax.draft.cross_vocabulary import check_model
  from mtjax.draft.reencoding import translator
  from mtjax.presets import load_pretrained, weights_for_decoding

  fields = dict(config.get("drafter", {}))
  look_back = fields.pop("look_back", 10)
  draft = load_pretrained(config["draft_model"])
  check_model(draft.model, draft.tokenizer.vocab_size)
  handle = translator(target.tokenizer, draft.tokenizer, look_back).handle
  params = weights_for_decoding(draft.params, config["weights"])
  return CrossVocabulary(draft.model, **fields), (params, handle)


def check_vocabulary(draft: TextModel, target: TextModel, name: str) -> None:
  """Raises ValueError unless the two have one tokenizer."""
  if draft.tokenizer.fingerprint() != target.tokenizer.fingerprint():
    raise ValueError(
      f"the draft model {name!r} has another vocabulary than the target: tokens of one mean "
      "nothing to the other; cross_vocabulary is the drafter for such a pair"
    )


DRAFTERS: dict[str, Build] = {
  "lookup": of_settings(PromptLookup),
  "draft": with_draft_model(ModelChain),
  "sorted": with_draft_model(Sorted),
  "self_sorted": with_target(SelfSorted),
  "draft_tree": with_draft_model(ModelTree.of_names),
  "best_first": with_draft_model(BestFirst),
  "grown_tree": with_draft_model(GrownTree),
  "trie": with_store(TrieStore, TrieSettings),
  "suffix": with_store(SuffixStore, SuffixSettings),
  "recycling": of_vocabulary(Recycling),
  "jacobi": of_settings(Jacobi),
  "cross_vocabulary": with_other_vocabulary,
}
