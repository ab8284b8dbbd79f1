"""The bytes that the tokens of a vocabulary stand for, read from a tokenizer.json."""

import functools
import re
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(settings: dict[str, Any], tokenizer: Any, vocab_size: int) -> tuple[bytes, ...]:
  """Returns the bytes of every id in running text; b"" for special tokens and unused ids.

  `settings` is the content of the tokenizer.json that `tokenizer` was made from, before tokens
  were added to it. Its decoder distinguishes two families: byte-level (GPT-2, Llama 3, Qwen) writes
  a byte as a printable letter; the SentencePiece kind (Llama 2, Gemma, Mistral) writes a space as
  U+2581 and other bytes as <0x0A>. Tokens of neither kind stand for their own text.
  """
  to_bytes = _byte_level if _has_byte_level(settings) else _sentencepiece
  added = tokenizer.get_added_tokens_decoder()
  out = []
  for index in range(vocab_size):
    if index in added:
      token = added[index]
      out.append(b"" if token.special else token.content.encode())
    else:
      piece = tokenizer.id_to_token(index)
      out.append(b"" if piece is None else to_bytes(piece))
  return tuple(out)


def _has_byte_level(settings: dict[str, Any]) -> bool:
  decoder = settings.get("decoder") or {}
  return any(part["type"] == "ByteLevel" for part in decoder.get("decoders", [decoder]) if part)


def _byte_level(piece: str) -> bytes:
  table = letters()
  return bytes(table[letter] for letter in piece if letter in table)


def _sentencepiece(piece: str) -> bytes:
  byte = _BYTE.fullmatch(piece)
  return bytes([int(byte[1], 16)]) if byte else piece.replace("\u2581", " ").encode()


@functools.cache
def letters() -> dict[str, int]:
  """Returns GPT-2's letters for bytes: printable Latin-1 is itself, the rest is U+0100 and on."""
  latin = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in latin]
  return {chr(byte): byte for byte in latin} | {chr(256 + i): byte for i, byte in enumerate(others)}
