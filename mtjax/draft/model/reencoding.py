"""Two tokenizers meet in bytes: the text of one in tokens of the other, and drafts back again."""

import codecs
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Int

from mtjax.draft import host


@runtime_checkable
class TextTokenizer(Protocol):
  """The functions of a tokenizer that are needed; those of `mtjax.data.tokenizers` have it."""

  bos_id: int  # read in place of a text of no token
  eos_id: int  # drafted where the draft model ends the text

  def encode(self, text: str) -> list[int]:
    """Returns tokens with the special ones that the model expects around a prompt."""
    ...

  def encode_documents(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
    """Returns tokens of each text, without special ones."""
    ...

  def token_bytes(self) -> list[bytes]:
    """Returns the bytes that each id spells; b"" for special tokens."""
    ...

  def fingerprint(self) -> str:
    """Returns a string that differs between tokenizers that give different ids."""
    ...


class Spelling:
  """A tokenizer as ids that spell bytes.

  Raises ValueError, with `name`, for a tokenizer without the functions this needs, and for one
  that does not give back the text it is given (one that lower-cases it, say).
  """

  def __init__(self, tokenizer: TextTokenizer, name: str):
    needed = ("encode", "encode_documents", "token_bytes", "fingerprint")
    missing = [function for function in needed if not hasattr(tokenizer, function)]
    if missing:
      raise ValueError(f"{name} lacks {', '.join(missing)}: its text cannot be encoded again")
    self.tokenizer, self.table = tokenizer, tokenizer.token_bytes()
    spelled = self.join(tokenizer.encode_documents(["a"])[0])
    if not spelled.endswith(b"a"):
      raise ValueError(f"the tokens of {name} do not spell the text that they are made from")
    self.lead = spelled[:-1]  # what is put before any text: a space by the SentencePiece kind

  def bytes_of(self, token: int) -> bytes:
    """Returns b"" for special tokens, and for ids of a padded model that the tokenizer lacks."""
    return self.table[token] if token < len(self.table) else b""

  def join(self, ids: Sequence[int]) -> bytes:
    return b"".join(map(self.bytes_of, ids))

  def encode(self, data: bytes) -> list[int] | None:
    """Returns tokens that spell `lead` and `data`; None if data is no UTF-8 or there are none."""
    try:
      ids = list(self.tokenizer.encode_documents([data.decode()])[0]) if data else []
    except UnicodeDecodeError:
      return None
    return ids if not data or self.join(ids) == self.lead + data else None

  def ends(self, ids: Sequence[int]) -> list[int]:
    """Returns the end of each token, in bytes."""
    return np.cumsum([len(self.bytes_of(token)) for token in ids], dtype=int).tolist()


class Translator:
  """The text of a target model for a draft model with another tokenizer, as a host store.

  Only about `look_back` tokens before the first difference are encoded again (transformers'
  universal assisted generation has 10); what stands before keeps its tokens. It holds no text:
  one translator serves all rows and generations. Raises ValueError for one vocabulary given
  twice, and as `Spelling` does.
  """

  def __init__(self, target: TextTokenizer, draft: TextTokenizer, look_back: int = 10):
    self.target, self.draft = Spelling(target, "the target"), Spelling(draft, "the draft model")
    if target.fingerprint() == draft.fingerprint():
      raise ValueError(
        "target and draft model share a vocabulary: use the drafter `draft`, which needs no text"
      )
    if look_back < 1:
      raise ValueError(f"look_back must be at least 1, got {look_back}")
    self.look_back = look_back
    self._before = list(draft.encode(""))  # what the draft model expects before any text

  @property
  def handle(self) -> Int[Array, ""]:
    """Parameter of the drafter; the caller keeps the translator alive."""
    return host.register(self)

  def to_draft(self, text: Sequence[int], held: Sequence[int]) -> tuple[list[int] | None, int]:
    """Returns the text in the draft model's tokens, and how many of `held` are their beginning.

    At least one is left to be read. A character whose last bytes are missing is left out, other
    bytes that are no UTF-8 are U+FFFD. None for a text without such tokens.
    """
    known, _ = _whole_characters(self.target.join(text))
    ids, agreed = self._spliced(known, list(held[len(self._before) :]))
    if ids is None:
      return None, 0
    ids = self._before + ids or [self.draft.tokenizer.bos_id]
    return ids, min(len(self._before) + agreed, len(held), len(ids) - 1)

  def _spliced(self, known: bytes, held: list[int]):
    """Returns tokens of `known` that share the longest prefix with `held`, and its length."""
    draft = self.draft
    if not known:
      return [], 0
    goal = draft.lead + known
    begin = [0, *draft.ends(held)]
    same = _common(draft.join(held), goal)
    agreed = 0
    while agreed < len(held) and begin[agreed] < begin[agreed + 1] <= same:
      agreed += 1
    places = {begin[i]: i for i in range(agreed + 1)}
    start, back = agreed, self.look_back
    while start > 0:
      start = max(start - back, 0)
      while start > 0 and not _is_boundary(goal, begin[start]):
        start -= 1
      if start == 0:
        break
      new = draft.encode(goal[begin[start] :])
      if new is None:
        return None, 0
      # The first token of a window may owe its form to the cut before it: it is not taken.
      for index, end in enumerate(draft.ends(new), 1):
        place = places.get(begin[start] + end - len(draft.lead), -1)
        if place > start:
          return _joined(held[:agreed], place, new[index:])
      back *= 2
    new = draft.encode(known)
    return (None, 0) if new is None else _joined(held[:agreed], 0, new)

  def to_target(self, text: Sequence[int], drafted: Sequence[int]) -> list[int]:
    """Returns the target's tokens for the draft that comes after `text`.

    The known tokens and the draft are encoded together, and what follows the known ones is taken;
    the draft is encoded alone where a token would span both (the known tokens are what they are).
    The last token goes, as more text might make it another, unless it is the only one or the draft
    model ended the text: then the target's end token follows.
    """
    target, tokens = self.target, []
    ended = False
    for token in drafted:
      spelled = self.draft.bytes_of(token)
      if not spelled:
        ended = token == self.draft.tokenizer.eos_id
        break
      tokens.append(spelled)
    _, rest = _whole_characters(target.join(text))
    new = b"".join(tokens)
    if not new.startswith(rest):
      return []
    new = new[len(rest) :]
    window = self._window(text)
    whole = _complete(window + new)
    ids = None if whole is None else target.encode(whole)
    if ids is not None:
      ends = [0, *(end - len(target.lead) for end in target.ends(ids))]
      ids = ids[ends.index(len(window)) :] if len(window) in ends else None
    if ids is None and not target.lead and not rest:
      whole = _complete(new)
      ids = None if whole is None else target.encode(whole)
    ids = ids or []
    if ended:
      return [*ids, target.tokenizer.eos_id]
    return ids[:-1] if len(ids) > 1 else ids

  def _window(self, text: Sequence[int]) -> bytes:
    """Returns the bytes of the last tokens: whole characters, none before a special token."""
    spelled: list[bytes] = []
    for token in reversed(text):
      if not self.target.bytes_of(token):
        break
      spelled.insert(0, self.target.bytes_of(token))
      if len(spelled) >= self.look_back and _is_boundary(spelled[0], 0):
        break
    return b"".join(spelled)


_KEPT: dict[tuple[str, str, int], Translator] = {}


def translator(target: TextTokenizer, draft: TextTokenizer, look_back: int = 10) -> Translator:
  """Returns one translator per pair of vocabularies, kept as long as the process: it is small."""
  key = (target.fingerprint(), draft.fingerprint(), look_back)
  if key not in _KEPT:
    _KEPT[key] = Translator(target, draft, look_back)
  return _KEPT[key]


def _whole_characters(data: bytes) -> tuple[bytes, bytes]:
  """Returns whole characters in UTF-8, and the cut beginning of a last one."""
  decoder = codecs.getincrementaldecoder("utf-8")("replace")
  text = decoder.decode(data)
  return text.encode(), decoder.getstate()[0]


def _complete(data: bytes) -> bytes | None:
  """Returns `data` without the beginning of a last character; None for what is no UTF-8."""
  decoder = codecs.getincrementaldecoder("utf-8")()
  try:
    return decoder.decode(data).encode()
  except UnicodeDecodeError:
    return None


def _is_boundary(data: bytes, place: int) -> bool:
  """Returns whether a character begins at `place`."""
  return place >= len(data) or data[place] & 0xC0 != 0x80


def _common(one: Sequence, other: Sequence) -> int:
  """Returns the length of the common prefix, by bisection: comparing slices is fast."""
  low, high = 0, min(len(one), len(other))
  while low < high:
    middle = (low + high + 1) // 2
    low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
  return low


def _joined(held: list[int], place: int, new: list[int]) -> tuple[list[int], int]:
  """Returns held[:place] and `new`, and how much of the result `held` has."""
  return held[:place] + new, place + _common(held[place:], new)
