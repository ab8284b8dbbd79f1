"""Conversations as the text of a model's chat template, which may end inside a message."""

from collections.abc import Sequence
from typing import Any

from mtjax.data.tokenizers import BpeTokenizer, Tokenizer

# A space at its end tells whether the template removes white space around a message.
_END = "MTJAX-END-OF-MESSAGE "


def chat_tokenizer(tokenizer: Tokenizer) -> BpeTokenizer:
  """Returns the tokenizer, which has a chat template. Raises ValueError for one that cannot."""
  if not isinstance(tokenizer, BpeTokenizer):
    raise ValueError("this model's tokenizer has no chat template: leave apply_chat_template")
  return tokenizer


def render_conversation(tokenizer: Tokenizer, messages: Sequence[dict[str, Any]]) -> str:
  """Returns a conversation and the beginning of the model's next message."""
  return chat_tokenizer(tokenizer).render_chat(messages)


def render_open_conversation(tokenizer: Tokenizer, messages: Sequence[dict[str, Any]]) -> str:
  """Returns a conversation whose last message is not ended, so that the model continues it.

  It is cut where the last message ends, as `continue_final_message` of transformers does; white
  space at that end goes if the template removes it. Raises ValueError for no message, one without
  text, and a template that does not show it.
  """
  last = messages[-1] if messages else {}
  if not isinstance(last.get("content"), str):
    raise ValueError("there is no message with text to continue at the end of the conversation")
  marked = [*messages[:-1], {**last, "content": last["content"] + _END}]
  text = chat_tokenizer(tokenizer).render_chat(marked, add_generation_prompt=False)
  place = text.rfind(_END.strip())
  if place < 0:
    raise ValueError("the chat template does not show the last message, so it cannot be continued")
  before = text[:place]
  return before if text.startswith(_END, place) else before.rstrip()
