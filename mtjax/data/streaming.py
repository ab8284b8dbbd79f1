"""Text that grows token by token: whole characters, each once."""

import codecs
from collections.abc import Sequence

from mtjax.data.tokenizers import Tokenizer


class TextStream:
  """Feeds tokens, gives text; a character whose bytes are not all there yet waits for the rest.

  The pieces of a byte-level tokenizer's stream joined are `decode` of all its tokens. Bytes that
  can be no UTF-8 become U+FFFD, as in `decode`.
  """

  def __init__(self, tokenizer: Tokenizer):
    self._bytes = tokenizer.token_bytes()
    self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

  def feed(self, ids: Sequence[int]) -> str:
    """The text that these tokens complete; ids past the vocabulary stand for nothing."""
    known = (self._bytes[token] for token in ids if token < len(self._bytes))
    return self._decoder.decode(b"".join(known))

  def finish(self) -> str:
    """What waited: nothing, or U+FFFD for a character that was cut."""
    return self._decoder.decode(b"", final=True)
