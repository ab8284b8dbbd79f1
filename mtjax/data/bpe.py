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

# What merges may not cross. A line break keeps the indentation after it, so that one token can be
# "\n        "; every digit stands alone; a word, or a run of signs, keeps the one space before it.
_PIECES = r"\n+ *| ?\d| {2,}| ?[A-Za-z]+|'(?:s|t|re|ve|m|ll|d)\b| ?[^\sA-Za-z\d]+|\s"


def sample(sources: Sequence[Source], *, characters: int, seed: int) -> list[list[str]]:
  """Documents of each source, drawn without replacement up to its weight's share of `characters`.

  The document that reaches the share is the last and is whole; a smaller source is taken whole.
  """
  rng = random.Random(seed)
  total = sum(source.weight for source in sources)
  return [_draw(list(documents(s)), characters * s.weight / total, rng) for s in sources]


def _draw(texts: list[str], characters: float, rng: random.Random) -> list[str]:
  taken, size = [], 0
  for text in rng.sample(texts, len(texts)):
    taken.append(text)
    size += len(text)
    if size > characters:
      break
  return taken


def train(texts: Sequence[str], *, vocab_size: int) -> "tokenizers.Tokenizer":
  """A BPE over bytes: any text has tokens, and they decode to that text.

  Ids 0 and 1 are SPECIAL, then come the 256 bytes and the merges. Raises ValueError for a
  vocabulary without room for a merge, and for texts that do not have enough of them.
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
      f"the texts have merges for {out.get_vocab_size()} tokens, not {vocab_size}; give more text"
    )
  return out
