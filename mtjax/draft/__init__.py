"""Drafters: what proposes the tokens that a target model verifies."""

from mtjax.draft.model.best_first import BestFirst
from mtjax.draft.model.canvas import ModelCanvas
from mtjax.draft.model.chain import ModelChain
from mtjax.draft.model.cross_vocabulary import CrossVocabulary
from mtjax.draft.model.fixed_tree import ModelTree
from mtjax.draft.model.grown_tree import GrownTree
from mtjax.draft.model.s2d import S2D, SelfS2D
from mtjax.draft.model.vocabulary import InVocabulary, TrimmedVocabulary, in_vocabulary
from mtjax.draft.model_free.jacobi import Jacobi
from mtjax.draft.model_free.lookup import PromptLookup
from mtjax.draft.model_free.recycling import Recycling
from mtjax.draft.model_free.suffix import SuffixSettings, SuffixStore
from mtjax.draft.model_free.trie import RatedTrie, Trie
from mtjax.draft.model_free.trie_settings import TrieSettings
from mtjax.draft.model_free.trie_store import TrieStore
from mtjax.draft.protocol import (
  Context,
  Drafter,
  ForAnyTarget,
  Round,
  WithDraftModel,
  check_draft_model,
  draft_keys,
)
from mtjax.draft.shaped.chain import ShapedChain
from mtjax.draft.shaped.tree import ShapedTree

__all__ = [
  "BestFirst",
  "Context",
  "CrossVocabulary",
  "Drafter",
  "ForAnyTarget",
  "GrownTree",
  "InVocabulary",
  "Jacobi",
  "ModelCanvas",
  "ModelChain",
  "ModelTree",
  "PromptLookup",
  "RatedTrie",
  "Recycling",
  "Round",
  "SelfS2D",
  "S2D",
  "ShapedChain",
  "ShapedTree",
  "SuffixSettings",
  "SuffixStore",
  "Trie",
  "TrieSettings",
  "TrieStore",
  "TrimmedVocabulary",
  "WithDraftModel",
  "check_draft_model",
  "draft_keys",
  "in_vocabulary",
]
