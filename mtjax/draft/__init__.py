"""Drafters: what proposes the tokens that a target model verifies."""

from mtjax.draft.best_first import BestFirst
from mtjax.draft.cross_vocabulary import CrossVocabulary
from mtjax.draft.grown_tree import GrownTree
from mtjax.draft.jacobi import Jacobi
from mtjax.draft.lookup import PromptLookup
from mtjax.draft.model_chain import ModelChain
from mtjax.draft.model_tree import ModelTree
from mtjax.draft.protocol import Context, Drafter, Round, check_draft_model, draft_keys
from mtjax.draft.recycling import Recycling
from mtjax.draft.sorted import SelfSorted, Sorted
from mtjax.draft.suffix import SuffixSettings, SuffixStore
from mtjax.draft.trie import Trie
from mtjax.draft.trie_settings import TrieSettings
from mtjax.draft.trie_store import TrieStore
from mtjax.draft.vocabulary import InVocabulary, in_vocabulary

__all__ = [
  "BestFirst",
  "Context",
  "CrossVocabulary",
  "Drafter",
  "GrownTree",
  "InVocabulary",
  "Jacobi",
  "ModelChain",
  "ModelTree",
  "PromptLookup",
  "Recycling",
  "Round",
  "SelfSorted",
  "Sorted",
  "SuffixSettings",
  "SuffixStore",
  "Trie",
  "TrieSettings",
  "TrieStore",
  "check_draft_model",
  "draft_keys",
  "in_vocabulary",
]
