"""SentencePiece's BPE out of a GGUF file: tokenizer.ggml.model llama (also Gemma's).

SentencePiece merges the neighbours whose union has the best score (bpe_model.cc), and writes
characters without a token as bytes. Its file has scores and no merges; the `tokenizers` library
wants merges, best first. These are all cuts of a token into two tokens, in the order of its score.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mtjax.data.gguf.header import GgufHeader
from mtjax.data.gguf.tokens import BYTE, NORMAL, VocabularyTokens, check_length

if TYPE_CHECKING:
  import tokenizers

_SPACE = "\u2581"


def model(
  header: GgufHeader, tokens: VocabularyTokens, named: Mapping[str, str]
) -> "tokenizers.models.BPE":
  """Returns merges and vocabulary.

  Raises ValueError without scores, and for a vocabulary that can express some text neither by
  bytes nor by an unknown token.
  """
  from tokenizers import models

  key = "tokenizer.ggml.scores"
  scores = header.numbers(key)
  check_length(header, "scores", scores, len(tokens.texts))
  has_bytes = len(tokens.of_kind(BYTE)) == 256
  unknown = named.get("unk_token")
  if not has_bytes and unknown is None:
    raise ValueError(
      f"tokenizer.ggml.tokens of {header.file} has neither the 256 bytes nor an unknown token: "
      "there would be texts without tokens"
    )
  return models.BPE(
    vocab=tokens.ids,
    merges=merges(tokens, scores),
    unk_token=unknown,
    fuse_unk=True,
    byte_fallback=has_bytes,
  )


def merges(tokens: VocabularyTokens, scores: np.ndarray) -> list[tuple[str, str]]:
  """Returns all pairs of normal tokens that make a normal token, the best score first.

  The others are never merged: SentencePiece keeps control tokens, bytes and the unknown token
  apart, so that no text spells them, and finds user-defined tokens before it merges.
  """
  normal = tokens.of_kind(NORMAL)
  known = {tokens.texts[index] for index in normal}
  # A stable sort: tokens with one score stay in the order of their ids.
  ranked = sorted(normal, key=lambda index: -scores[index])
  return [
    (left, right)
    for text in map(tokens.texts.__getitem__, ranked)
    for cut in range(len(text) - 1, 0, -1)
    if (left := text[:cut]) in known and (right := text[cut:]) in known
  ]


def configure(tokenizer: "tokenizers.Tokenizer", header: GgufHeader) -> None:
  """Sets what surrounds the merges: spaces as U+2581, one more before a text, bytes."""
  from tokenizers import decoders, normalizers

  as_mark = normalizers.Replace(" ", _SPACE)
  parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
  if header.flag("tokenizer.ggml.add_space_prefix", True):
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), as_mark])
    parts.append(decoders.Strip(" ", 1, 0))
  else:
    tokenizer.normalizer = as_mark
  tokenizer.decoder = decoders.Sequence(parts)
