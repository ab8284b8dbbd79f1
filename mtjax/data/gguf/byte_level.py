"""Byte-level BPE out of a GGUF file: tokenizer.ggml.model gpt2."""

from typing import TYPE_CHECKING

from mtjax.data.gguf.header import GgufHeader
from mtjax.data.gguf.splits import SPLITS, TextSplit
from mtjax.data.gguf.tokens import VocabularyTokens

if TYPE_CHECKING:
  import tokenizers


def read_split(header: GgufHeader) -> TextSplit:
  """Returns where texts are cut. Raises ValueError for a name that is not known, with those that
  are: other cuts would give other tokens, and nobody would see it."""
  key = "tokenizer.ggml.pre"
  name = header.text(key, "default")
  if name not in SPLITS:
    raise ValueError(
      f"{key} of {header.file} is {name!r:.40}, which is not known; known: {', '.join(SPLITS)}"
    )
  return SPLITS[name]


def model(
  header: GgufHeader, tokens: VocabularyTokens, split: TextSplit
) -> "tokenizers.models.BPE":
  """Returns merges and vocabulary. Raises ValueError for merges that are none of the vocabulary."""
  from tokenizers import models

  key, ids, merges = "tokenizer.ggml.merges", tokens.ids, []
  for merge in header.texts(key):
    left, _, right = merge.partition(" ")
    # For some of these the library panics, which is no Exception.
    if left not in ids or right not in ids or left + right not in ids:
      raise ValueError(f"{key} of {header.file} has {merge!r:.80}, which makes no token")
    merges.append((left, right))
  return models.BPE(vocab=ids, merges=merges, ignore_merges=split.keeps_tokens)


def configure(tokenizer: "tokenizers.Tokenizer", split: TextSplit) -> None:
  """Sets what surrounds the merges: the cuts, and bytes as letters."""
  import tokenizers
  from tokenizers import decoders, pre_tokenizers

  cuts = [pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in split.patterns]
  to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, to_letters])
  tokenizer.decoder = decoders.ByteLevel()
