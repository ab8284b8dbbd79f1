"""Training a byte-level BPE on a sample of texts."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtjax import arguments
from mtjax.data.sources.read import documents
from mtjax.data.sources.source import Source

if TYPE_CHECKING:
  import tokenizers

EOS, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = (EOS, PAD)

# Pieces that no merge may cross. A line break keeps the indentation after it, so that one token can
# be "\n        "; every digit is alone; a word, or a run of signs, keeps the one space before it.
_PIECES = r"\n+ *| ?\d| {2,}| ?[A-Za-z]+|'(?:s|t|re|ve|m|ll|d)\b| ?[^\sA-Za-z\d]+|\s"


def sample(sources: Sequence[Source], *, characters: int, seed: int) -> list[list[str]]:
  """Samples documents of each source, without replacement, up to its share of `characters`.

  The shares are proportional to the weights. The document that reaches the share is the last one
  and stays whole; a smaller source is used whole.
  """
  rng = random.Random(seed)
  total = sum(source.weight for source in sources)
  return [_sampled(list(documents(s)), characters * s.weight / total, rng) for s in sources]


def _sampled(texts: list[str], characters: float, rng: random.Random) -> list[str]:
  out, size = [], 0
  for text in rng.sample(texts, len(texts)):
    out.append(text)
    size += len(text)
    if size > characters:
      break
  return out


def train(texts: Sequence[str], *, vocab_size: int) -> "tokenizers.Tokenizer":
  """Trains a BPE over bytes: any text has tokens, and they decode to that text.

  Ids 0 and 1 are SPECIAL, then come the 256 bytes and the merges. Raises ValueError for a
  vocabulary that is too small for a merge, and for texts that do not have enough merges.
  """
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers, trainers

  minimum = len(SPECIAL) + 257
  if vocab_size < minimum:
    raise ValueError(f"vocab_size must be at least {minimum}, got {vocab_size}")
  out = tokenizers.Tokenizer(models.BPE())
  out.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(_PIECES), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  out.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=list(SPECIAL),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  out.train_from_iterator(arguments.texts(texts), trainer)
  if out.get_vocab_size() < vocab_size:
    raise ValueError(
      f"the texts have merges for {out.get_vocab_size()} tokens, not {vocab_size}: give more text"
    )
  return out
