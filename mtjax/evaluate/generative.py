"""How natural texts are to a causal judge, and how varied: generative perplexity with entropy."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mtjax.data.pieces import encode_pieces
from mtjax.evaluate.perplexity import document_nats
from mtjax.models import check_causal
from mtjax.pretrained import load_pretrained
from mtjax.rounds.size_buckets import bucket
from mtjax.text import TextModel

_LENGTH = 512  # number of tokens per row of the judge
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class JudgedText:
  """What a judge says of one text. Tokens are the judge's."""

  nats: float  # -log p of the text
  tokens: int
  bytes: int
  entropy: float  # of its tokens, in bits per token


@dataclasses.dataclass(frozen=True)
class TextQuality:
  """Generative perplexity of texts and, always beside it, their entropy.

  Text that repeats itself is easy to predict: its perplexity is low, and so is its entropy. A
  perplexity may be compared with another only where the entropies are near each other.
  """

  texts: int
  perplexity: float  # exp of the mean nats per token of all texts together
  bits_per_byte: float
  entropy: float  # mean over the texts, in bits per token

  @classmethod
  def of(cls, judged: Sequence[JudgedText]) -> "TextQuality":
    """Returns the quality of texts. Raises ValueError if there is no token in any of them."""
    nats, tokens, size = (sum(getattr(x, f) for x in judged) for f in ("nats", "tokens", "bytes"))
    if not tokens:
      raise ValueError("there is no text to judge: all texts are empty")
    varied = [one.entropy for one in judged if one.tokens]
    return cls(
      len(judged),
      math.exp(nats / tokens),
      nats / math.log(2) / size,
      math.fsum(varied) / len(varied),
    )


def load_judge(name: str) -> TextModel:
  """Returns a judge by name. Raises ValueError for a model that is not causal."""
  loaded = load_pretrained(name)
  check_causal(loaded.model, f"the judge {name!r}")
  return loaded


def judge_texts(
  judge: TextModel, texts: Sequence[str], prompts: Sequence[str] | None = None
) -> list[JudgedText]:
  """Returns -log p of each text under a causal judge, and the entropy of its tokens.

  A text is read after the judge's begin token and its prompt, which counts in neither figure.
  Prompt and text are encoded one by one. Both figures are of the judge's tokens, so that writers
  with different tokenizers can be compared (2504.20456, section 5, counts so where writer and judge
  share a tokenizer). Texts without a token have 0 nats. Raises ValueError for prompts that are not
  as many as the texts.
  """
  prompts = [""] * len(texts) if prompts is None else list(prompts)
  if len(prompts) != len(texts):
    raise ValueError(f"there are {len(texts)} texts and {len(prompts)} prompts: give one for each")
  tokenizer = judge.tokenizer
  pairs = [encode_pieces(tokenizer, [a, b]) for a, b in zip(prompts, texts, strict=True)]
  documents = [[*before, *ids] for before, ids in pairs] + [list(before) for before, _ in pairs]
  # Rows of one size hold all short texts; long ones are cut into rows of the largest size.
  longest = bucket(max(map(len, documents), default=1))
  length = min(_LENGTH, judge.model.config.max_position, longest)
  nats = np.zeros(len(documents))
  if any(documents):
    nats = document_nats(
      judge.model,
      judge.params,
      documents,
      start=tokenizer.bos_id,
      length=length,
      context=length // 2,
      batch=min(_BATCH, len(documents)),
    )
  # A prompt alone is cut into the same rows as at the beginning of prompt and text.
  return [
    JudgedText(float(whole - part), len(ids), len(text.encode()), entropy(ids))
    for whole, part, (_, ids), text in zip(
      nats[: len(texts)], nats[len(texts) :], pairs, texts, strict=True
    )
  ]


def entropy(tokens: Sequence[int]) -> float:
  """Returns Shannon's entropy of the unigram frequencies of one text, in bits per token.

  It is at most log2 of the text's length, and 0 for a text without tokens.
  """
  counts = np.unique(np.asarray(tokens), return_counts=True)[1]
  share = counts / max(counts.sum(), 1)
  return float(-(share * np.log2(share)).sum())
