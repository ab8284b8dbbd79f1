"""Scores of texts: `score(model, ["a text", "another"])`."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtjax.anysubset import log_likelihood, make_canvas
from mtjax.arguments import texts as several
from mtjax.evaluate.perplexity import Score, document_nats
from mtjax.models import check_causal
from mtjax.rounds.size_buckets import bucket
from mtjax.text import TextModel

_LENGTH = 512  # number of tokens per row, of which half are repeated as context
_BATCH = 8

__all__ = ["Score", "score"]


def score(model: TextModel, texts: str | Sequence[str]) -> list[Score]:
  """Returns log p of each text: `log_likelihood` in nats, `bits_per_byte`, `perplexity`.

  A causal model reads a text after its begin token, in rows of up to 512 tokens that overlap by
  half (`mtjax.evaluate.perplexity`). An any-subset model scores all tokens of a text jointly, in
  its own order, without context (2504.20456, sec. 4): such a text must fit its positions.

  Raises ValueError for no text, an empty one, one that is no str, and one that is too long.
  """
  texts = several(texts)
  for number, text in enumerate(texts):
    if not isinstance(text, str):
      raise ValueError(f"text {number} must be a str, got {text!r}")
    if not text:
      raise ValueError(f"text {number} is empty: there is nothing to score")
  documents = [list(tokens) for tokens in model.tokenizer.encode_documents(texts)]
  nats = _causal(model, documents) if _is_causal(model) else _jointly(model, documents)
  return [
    Score(float(total), len(tokens), len(text.encode()))
    for total, tokens, text in zip(nats, documents, texts, strict=True)
  ]


def _is_causal(model: TextModel) -> bool:
  try:
    check_causal(model.model, "the model")
  except ValueError:
    return False
  return True


def _causal(model: TextModel, documents: Sequence[list[int]]) -> Float[np.ndarray, " N"]:
  max_position = model.model.config.max_position
  longest = max(map(len, documents), default=1)
  length = (
    min(_LENGTH, bucket(longest, maximum=max_position))
    if longest <= max_position
    else min(_LENGTH, max_position)
  )
  return document_nats(
    model.model,
    model.params,
    documents,
    start=model.tokenizer.bos_id,
    length=length,
    context=length // 2,
    batch=_BATCH,
    mesh=model.mesh,
  )


def _jointly(model: TextModel, documents: Sequence[list[int]]) -> Float[np.ndarray, " N"]:
  if not documents:
    raise ValueError("there is no text to score")
  out = np.zeros(len(documents))
  for first in range(0, len(documents), _BATCH):
    part = documents[first : first + _BATCH]
    token = np.zeros((len(part), max(map(len, part))), np.int32)
    valid = np.zeros(token.shape, bool)
    for row, tokens in enumerate(part):
      token[row, : len(tokens)], valid[row, : len(tokens)] = tokens, True
    canvas = make_canvas(model.model.config, token, valid, valid)
    log_p = log_likelihood(model.model, model.params, canvas, mesh=model.mesh)
    out[first : first + _BATCH] = -log_p.astype(np.float64).sum(axis=1)
  return out
