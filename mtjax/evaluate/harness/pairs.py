"""Pairs of context and continuation as tokens, as lm-evaluation-harness cuts them.

The conventions are those of its `TemplateLM` and of `lm_eval.utils.get_rolling_token_windows`
(https://github.com/EleutherAI/lm-evaluation-harness, release 0.4.13).
"""

import dataclasses
from collections.abc import Sequence

from mtjax.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class TokenPair:
  """Tokens that are read, at least one, and tokens that are scored after them, at least one."""

  context: list[int]
  target: list[int]

  def row(self, max_length: int) -> tuple[list[int], list[int]]:
    """Returns inputs and the tokens that follow each of them, cut on the left to `max_length`."""
    tokens = (self.context + self.target)[-(max_length + 1) :]
    return tokens[:-1], tokens[1:]


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
  """Returns the tokens of a prompt.

  A begin token that the tokenizer would add is not added to text that spells it already, which a
  chat template writes. An empty text is the begin token alone.
  """
  spelled = {index: token for token, index in tokenizer.special_tokens().items()}
  begin = spelled.get(tokenizer.bos_id)
  if begin is not None and text.startswith(begin):
    return encode_bare(tokenizer, text)
  return list(tokenizer.encode(text)) or [tokenizer.bos_id]


def encode_bare(tokenizer: Tokenizer, text: str) -> list[int]:
  """Returns the tokens of a text with the special tokens that it spells, and no others."""
  return list(getattr(tokenizer, "encode_rendered", tokenizer.encode)(text))


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> TokenPair:
  """Returns the tokens of a pair.

  White space at the end of the context belongs to the continuation, because tokens begin with it.
  Both are encoded as one text, which is cut after as many tokens as the context alone has. A
  context without any other character is the begin token (the end token if there is none), unless
  the continuation begins with it. Raises ValueError for a continuation that is left without tokens.
  """
  stripped = context.rstrip()
  continuation = context[len(stripped) :] + continuation
  if stripped:
    whole = encode_prompt(tokenizer, stripped + continuation)
    length = len(encode_prompt(tokenizer, stripped))
  else:
    whole, length = encode_bare(tokenizer, continuation), 1
    if whole[:1] != [tokenizer.bos_id]:
      whole.insert(0, tokenizer.bos_id)
  pair = TokenPair(whole[:length], whole[length:])
  if not pair.target:
    raise ValueError(
      f"the continuation {continuation[-80:]!r} after {context[-80:]!r} has no token of its own: "
      "there is nothing to score"
    )
  return pair


def rolling_pairs(tokens: Sequence[int], *, prefix: int, max_length: int) -> list[TokenPair]:
  """Cuts a document into pairs of at most `max_length` inputs; every token is a target once.

  The first pair's context is `prefix`. Each later one has `max_length` inputs: those before its
  targets are its context, so that the last pair, whose targets are few, has much of it. A document
  without tokens has no pair. Raises ValueError for a max_length below 1.
  """
  if max_length < 1:
    raise ValueError(f"max_length must be at least 1, got {max_length}")
  text, out = [prefix, *tokens], []
  for begin in range(0, len(tokens), max_length):
    end = min(begin + max_length, len(tokens))
    first = max(end - max_length, 0)
    out.append(TokenPair(text[first : begin + 1], text[begin + 1 : end + 1]))
  return out
