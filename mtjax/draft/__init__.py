"""Drafters: what proposes the tokens that a target model verifies."""

from mtjax.draft.lookup import PromptLookup
from mtjax.draft.model_chain import ModelChain
from mtjax.draft.protocol import Context, Drafter, Round, draft_keys

__all__ = ["Context", "Drafter", "ModelChain", "PromptLookup", "Round", "draft_keys"]
