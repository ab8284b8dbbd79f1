"""The tokens of a GGUF file: their texts and kinds, and which of them have a role."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mtjax.data.gguf.header import GgufHeader

# tokenizer.ggml.token_type: what a token is. NORMAL ones are merged from text.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_ROLES = {
  "bos_token": "bos_token_id",
  "eos_token": "eos_token_id",
  "unk_token": "unknown_token_id",
  "sep_token": "seperator_token_id",  # the format's spelling
  "pad_token": "padding_token_id",
  "mask_token": "mask_token_id",
}
_MORE_ENDS = ("eot_token_id", "eom_token_id")  # the ends of a turn and of a message
# Ends that files do not mention; llama.cpp looks for the same control tokens.
_USUAL_ENDS = (
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "<|eom_id|>",
  "<|end_of_text|>",
  "<EOT>",
  "</s>",
  "<eos>",
)


@dataclasses.dataclass(frozen=True)
class VocabularyTokens:
  """The texts of all ids, all different, and their kinds."""

  texts: Sequence[str]
  ids: dict[str, int]  # text -> id
  kinds: np.ndarray

  def of_kind(self, *kinds: int) -> list[int]:
    return np.flatnonzero(np.isin(self.kinds, kinds)).tolist()


def read_tokens(header: GgufHeader) -> VocabularyTokens:
  """Returns the tokens. Raises ValueError for tokens with one text, and for too few kinds.

  As in llama.cpp, an empty text becomes [EMPTY_id], and without kinds all tokens are normal.
  """
  texts = header.texts("tokenizer.ggml.tokens")
  if "" in texts:
    texts = [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]
  ids = dict(zip(texts, range(len(texts)), strict=True))
  if not ids or len(ids) < len(texts):
    twice = next((text for index, text in enumerate(texts) if ids[text] != index), None)
    what = "no token" if twice is None else f"the token {twice!r:.80} twice"
    raise ValueError(f"tokenizer.ggml.tokens of {header.file} has {what}")
  kinds = header.numbers("tokenizer.ggml.token_type", np.full(len(texts), NORMAL, np.int32))
  check_length(header, "token_type", kinds, len(texts))
  return VocabularyTokens(texts, ids, kinds[: len(texts)])


def check_length(header: GgufHeader, name: str, values: np.ndarray, count: int) -> None:
  """Raises ValueError for a list that is shorter than the tokens it belongs to."""
  if len(values) < count:
    raise ValueError(
      f"tokenizer.ggml.{name} of {header.file} has {len(values)} values for {count} tokens"
    )


def read_roles(
  header: GgufHeader, tokens: VocabularyTokens, defaults: Mapping[str, int]
) -> dict[str, str]:
  """Returns {"bos_token": its text} and so on; `defaults` are ids for roles that are not named."""
  named = {}
  for role, name in _ROLES.items():
    index = _role_id(header, name, len(tokens.texts))
    index = defaults.get(role) if index is None else index
    if index is not None and index < len(tokens.texts):
      named[role] = tokens.texts[index]
  return named


def read_ends(header: GgufHeader, tokens: VocabularyTokens) -> tuple[int, ...]:
  """Returns the ids that end a text, besides the token with the role: named ones, usual ones."""
  named = [_role_id(header, name, len(tokens.texts)) for name in _MORE_ENDS]
  usual = [tokens.ids[text] for text in _USUAL_ENDS if text in tokens.ids]
  control = [index for index in usual if tokens.kinds[index] == CONTROL]
  return tuple(dict.fromkeys([*(index for index in named if index is not None), *control]))


def _role_id(header: GgufHeader, name: str, count: int) -> int | None:
  key = f"tokenizer.ggml.{name}"
  if key not in header.values:
    return None
  index = header.whole(key)
  # Some converters write 2^32 - 1 for none.
  if index in (-1, 2**32 - 1):
    return None
  if not 0 <= index < count:
    raise ValueError(f"{key} of {header.file} is {index}, but there are {count} tokens")
  return index
