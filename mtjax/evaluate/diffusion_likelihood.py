"""The likelihood of texts under a masked diffusion model, by estimators side by side."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.likelihood.estimators import LikelihoodEstimator
from mtjax.diffusion.likelihood.network import block_of, network_conditionals
from mtjax.models import Params
from mtjax.sharding import MeshLike


@dataclasses.dataclass(frozen=True)
class LikelihoodScore:
  """The estimate of a text by one estimator, over all of its rows."""

  estimator: str
  kind: str  # "bound", "density" or "neither": `LikelihoodEstimator.kind`
  nats: float  # of -log p
  error: float  # standard error of `nats`
  tokens: int  # number of tokens
  bytes: int  # number of bytes

  @property
  def bits_per_byte(self) -> float:
    """Bits per byte; an upper bound of them where `kind` is "bound"."""
    return self.nats / math.log(2) / self.bytes


def rows_of(
  tokens: Sequence[int] | np.ndarray, *, length: int, context: int, start: int
) -> Iterator[tuple[Int[np.ndarray, " S"], int]]:
  """Cuts a document into rows of at most `length` tokens, each with its number of context tokens.

  The token `start` stands before the document. Each row after the first begins with the last
  `context` tokens before those that count, so that every token counts once.
  """
  text = np.asarray([start, *tokens], np.int32)
  done = 1
  while done < len(text):
    begin = max(0, done - max(context, 1)) if done > 1 else 0
    end = min(begin + length, len(text))
    yield text[begin:end], done - begin
    done = end


def diffusion_likelihood(
  network: MaskedNetwork,
  params: Params,
  documents: Sequence[tuple[Sequence[int] | np.ndarray, int]],
  estimators: Mapping[str, LikelihoodEstimator],
  *,
  start: int,
  length: int = 256,
  context: int = 64,
  batch: int = 16,
  mesh: MeshLike = None,
  progress: Callable[[int, int], None] | None = None,
) -> list[LikelihoodScore]:
  """Returns the score of documents, (tokens, bytes of the text they stand for), by each estimator.

  Rows have `length` tokens, of which the first `context`, or the token `start` alone, are given.
  `batch` maskings of a row go through the network at once; on a `mesh`, such as "data:2,model:2",
  they are split over data. `progress(done, total)` is called after
  each row. Raises ValueError for no document, and for a context that fills the row.
  """
  if not 0 <= context < length - 1:
    raise ValueError(f"context must be from 0 to below length - 1 = {length - 1}, got {context}")
  rows = [
    row
    for tokens, _ in documents
    for row in rows_of(tokens, length=length, context=context, start=start)
  ]
  if not rows:
    raise ValueError("there is no text to score: give documents with at least one token")
  sums = {name: np.zeros(2) for name in estimators}
  for number, (token, given) in enumerate(rows, 1):
    conditionals = network_conditionals(
      network, params, token, context=given, batch=batch, length=length, mesh=mesh
    )
    block = block_of(network, len(token), given)
    for name, estimator in estimators.items():
      found = estimator(conditionals, len(token) - given, block=block)
      sums[name] += (-found.nats, found.error**2)
    if progress is not None:
      progress(number, len(rows))
  tokens, size = sum(len(token) - given for token, given in rows), sum(n for _, n in documents)
  return [
    LikelihoodScore(name, estimators[name].kind, float(nats), math.sqrt(variance), tokens, size)
    for name, (nats, variance) in sums.items()
  ]
