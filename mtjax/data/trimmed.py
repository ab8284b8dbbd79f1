"""Trimmed vocabularies: the tokens that a small draft model has rows for, and one row for others.

Frequent tokens are most of every text, and a small model's embedding and head are most of its
weights (FR-Spec, 2502.14856; EAGLE-3, 2503.01840, has such a map from draft to target ids).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtjax.data.sources.text_files import read_object

if TYPE_CHECKING:
  from mtjax.data.tokenizers import Tokenizer

FILE = "vocabulary.json"


class TrimmedTokenizer:
  """A tokenizer whose ids are places in `ids`, a list of ids of another one; len(ids) for others.

  It stands in the other one's place where the small model is trained or decodes alone. The ids that
  begin and end texts must be among `ids`. `name` is that of a model with the tokenizer `whole`,
  which is not written again beside the map. Raises ValueError for ids that are no different ids of
  `whole`.
  """

  def __init__(self, whole: "Tokenizer", ids: Sequence[int], name: str):
    check_ids(ids, whole.vocab_size)
    self.whole, self.ids, self.name = whole, tuple(ids), name
    self._own = np.full(whole.vocab_size, len(ids), np.int64)
    self._own[list(ids)] = np.arange(len(ids))
    self.vocab_size = len(ids) + 1
    ends = dict.fromkeys((whole.bos_id, *whole.eos_ids))
    if absent := [token for token in ends if self._own[token] == len(ids)]:
      raise ValueError(f"a trimmed vocabulary needs the tokens that begin and end texts: {absent}")
    self.bos_id, self.eos_id = (int(self._own[i]) for i in (whole.bos_id, whole.eos_id))
    self.eos_ids = tuple(self.trim(whole.eos_ids))
    pad = int(self._own[whole.pad_id])
    self.pad_id = self.eos_id if pad == len(ids) else pad
    self.mask_token = None

  def trim(self, tokens: Sequence[int]) -> list[int]:
    """Returns tokens of the whole vocabulary as this one's."""
    return self._own[np.asarray([*tokens], np.int64)].tolist()

  def encode(self, text: str) -> list[int]:
    return self.trim(self.whole.encode(text))

  def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
    return [self.trim(ids) for ids in self.whole.encode_documents(texts)]

  def encode_chat(self, messages: Sequence[dict[str, Any]], **variables: Any) -> list[int]:
    """Returns the tokens of a conversation, if the whole tokenizer has a chat template."""
    encode_chat = getattr(self.whole, "encode_chat", None)
    if encode_chat is None:
      raise ValueError("this model's tokenizer has no chat template")
    return self.trim(encode_chat(messages, **variables))

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of the tokens that have rows; others leave no trace."""
    return self.whole.decode([self.ids[i] for i in ids if i < len(self.ids)])

  def token_bytes(self) -> list[bytes]:
    table = self.whole.token_bytes()
    return [*(table[i] for i in self.ids), b""]

  def special_tokens(self) -> dict[str, int]:
    own = {text: int(self._own[i]) for text, i in self.whole.special_tokens().items()}
    return {text: i for text, i in own.items() if i < len(self.ids)}

  def fingerprint(self) -> str:
    return json.dumps([self.whole.fingerprint(), self.ids])

  def files(self) -> dict[str, bytes]:
    """Returns the map's file, from which `read_map` reads the ids and the whole one's name."""
    return {FILE: (json.dumps(dict(tokenizer=self.name, ids=self.ids)) + "\n").encode()}


def read_map(folder: Path) -> tuple[str, tuple[int, ...]] | None:
  """Returns (name, ids) of `TrimmedTokenizer` from a model's folder, or None if it has no map.

  Raises ValueError that names the file for one of another form.
  """
  file = folder / FILE
  if not file.is_file():
    return None
  content = read_object(file)
  name, ids = content.get("tokenizer"), content.get("ids")
  if not isinstance(name, str) or not isinstance(ids, list):
    raise ValueError(f'{file} must hold {{"tokenizer": a model\'s name, "ids": a list of ids}}')
  try:
    check_ids(ids)
  except ValueError as error:
    raise ValueError(f"{file}: {error}") from None
  return name, tuple(ids)


def check_ids(ids: Sequence[int], size: int | None = None) -> None:
  """Raises ValueError unless `ids` are different ids of a vocabulary of `size` tokens."""
  if not ids:
    raise ValueError("a trimmed vocabulary needs at least 1 token")
  if wrong := [i for i in ids if type(i) is not int or i < 0 or (size is not None and i >= size)]:
    below = "" if size is None else f" below {size}"
    raise ValueError(f"the ids of a trimmed vocabulary must be whole numbers{below}: {wrong[:3]}")
  if len(set(ids)) < len(ids):
    twice = sorted({i for i in ids if ids.count(i) > 1})[:3] if len(ids) < 1000 else ""
    raise ValueError(f"the ids of a trimmed vocabulary must differ: {twice or 'some come twice'}")


def ids_of(tokenizer: "Tokenizer", tokens: Sequence[int], where: str) -> list[int]:
  """Returns stored tokens as the tokenizer's ids: a trimmed one translates those of the whole one.

  Raises ValueError that begins with `where` for what is no id.
  """
  size = (tokenizer.whole if isinstance(tokenizer, TrimmedTokenizer) else tokenizer).vocab_size
  if wrong := [i for i in tokens if type(i) is not int or not 0 <= i < size]:
    raise ValueError(f"{where}: {wrong[0]!r} is no token of a tokenizer with {size} tokens")
  return tokenizer.trim(tokens) if isinstance(tokenizer, TrimmedTokenizer) else list(tokens)
