"""Text that grows token by token, in whole characters, up to a stop string."""

import codecs
from collections.abc import Sequence

from mtjax.data.tokenizers import Tokenizer
from mtjax.rounds.stop_strings import SPECIAL, StopScan, StopWords


class TextStream:
  """A decoder from tokens to text, in which an incomplete character waits for its other bytes.

  Without stop strings, the joined pieces of a byte-level tokenizer's stream equal `decode` of all
  its tokens. (A SentencePiece tokenizer's `decode` drops the space that a text begins with, which a
  continuation needs.) Bytes that cannot be UTF-8 become U+FFFD, as in `decode`. With stop strings,
  the text ends before the first of them, and a possible beginning of one waits too.
  """

  def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
    self._bytes = tokenizer.token_bytes()
    self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
    self._scan = StopScan(StopWords.of(stop, tokenizer.special_tokens())) if stop else None

  def feed(self, ids: Sequence[int]) -> str:
    """Returns the text that these tokens complete; ids past the vocabulary have no text."""
    known = (token for token in ids if token < len(self._bytes))
    if self._scan is None:
      return self._decoder.decode(b"".join(self._bytes[token] for token in known))
    symbols = (s for token in known for s in self._bytes[token] or (SPECIAL + token,))
    return self._decoder.decode(self._scan.feed(symbols))

  def finish(self) -> str:
    """Returns what waited: the beginning of a stop string, or U+FFFD for a cut character."""
    rest = b"" if self._scan is None else self._scan.finish()
    return self._decoder.decode(rest, final=True)
