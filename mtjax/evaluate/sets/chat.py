"""Prompts of a set as messages in a chat."""

from mtjax.data.tokenizers import Tokenizer


def chat_prompt(tokenizer: Tokenizer, text: str, *, max_tokens: int) -> list[int]:
  """Returns a user's message in the model's chat template, with at most `max_tokens` tokens.

  A message that is too long loses its beginning; the template stays whole. Raises ValueError for a
  tokenizer without a template, and for a template that leaves no token for the message.
  """
  encode_chat = getattr(tokenizer, "encode_chat", None)
  if encode_chat is None:
    raise ValueError("this model's tokenizer has no chat template; use prompt_format text")

  def encode(message):
    return encode_chat([dict(role="user", content=message)])

  ids = encode(text)
  (message,) = tokenizer.encode_documents([text])
  kept = len(message)
  while len(ids) > max_tokens:
    kept -= len(ids) - max_tokens
    if kept < 1:
      raise ValueError(f"the chat template leaves nothing of a prompt of {max_tokens} tokens")
    # Text that is cut may have other tokens than it had as a part of the whole.
    ids = encode(tokenizer.decode(message[len(message) - kept :]))
  return ids
