"""The perplexity of text, and its bits per byte, which compare across tokenizers."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mtjax import frontier as frontier_lib
from mtjax import hosts
from mtjax.models import Model, Params
from mtjax.rounds.placement import Placement
from mtjax.sharding import MeshLike, on_mesh


@dataclasses.dataclass(frozen=True)
class Score:
  """The score of a text: its negative log-likelihood and its size."""

  nats: float  # -log p of the text
  tokens: int  # number of tokens
  bytes: int  # number of bytes

  @property
  def log_likelihood(self) -> float:
    """The log-likelihood in nats."""
    return -self.nats

  @property
  def bits_per_byte(self) -> float:
    return self.nats / math.log(2) / self.bytes

  @property
  def perplexity(self) -> float:
    """The perplexity per token, which depends on the tokenizer."""
    return math.exp(self.nats / self.tokens)


def windows(
  tokens: Sequence[int] | np.ndarray, *, length: int, context: int, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Cuts a document into (input, target, counted) rows of `length`; every token counts once.

  The token `start` stands before the document. Each row after the first repeats the last `context`
  tokens before those that it counts, so that no token is predicted from fewer.
  """
  text = np.asarray([start, *tokens], np.int32)
  begin = done = 0
  while done < len(tokens):
    end = min(begin + length, len(tokens))
    row = np.zeros(length, np.int32)
    target = np.zeros(length, np.int32)
    counted = np.zeros(length, bool)
    row[: end - begin] = text[begin:end]
    target[: end - begin] = text[begin + 1 : end + 1]
    counted[done - begin : end - begin] = True
    yield row, target, counted
    done = end
    begin = end - context


@functools.partial(jax.jit, static_argnames="model")
def _nats(model: Model, params: Params, tokens, targets, counted):
  logits = model.forward(params, frontier_lib.causal(tokens)).logits
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  nats = jax.nn.logsumexp(logits, axis=-1) - chosen
  return jnp.sum(jnp.where(counted, nats, 0.0), axis=1)


def score(
  model: Model,
  params: Params,
  documents: Sequence[tuple[Sequence[int] | np.ndarray, int]],
  *,
  start: int,
  length: int = 512,
  context: int = 256,
  batch: int = 8,
  mesh: MeshLike = None,
  progress: Callable[[int, int], None] | None = None,
) -> Score:
  """Scores documents of (tokens, bytes) together, by `document_nats`, whose errors it raises."""
  nats = document_nats(
    model,
    params,
    [tokens for tokens, _ in documents],
    start=start,
    length=length,
    context=context,
    batch=batch,
    mesh=mesh,
    progress=progress,
  )
  count = sum(len(tokens) for tokens, _ in documents)
  return Score(float(nats.sum()), count, sum(size for _, size in documents))


def document_nats(
  model: Model,
  params: Params,
  documents: Sequence[Sequence[int] | np.ndarray],
  *,
  start: int,
  length: int,
  context: int,
  batch: int = 8,
  mesh: MeshLike = None,
  progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, " N"]:
  """Returns -log p of each document, after the token `start`, read in rows of `length`.

  No token is predicted from fewer than `context` others if there are as many before it. `progress`
  is called with (rows done, rows). `mesh`: the devices to run on, such as "data:2,model:2"
  (`mtjax.sharding.parse_mesh`); None: where the parameters are. Raises ValueError for no text, for
  a context not below length, and for rows longer than the model's positions.
  """
  if not 0 <= context < length:
    raise ValueError(f"context must be from 0 to length - 1 = {length - 1}, got {context}")
  if length > model.config.max_position:
    raise ValueError(f"length {length} exceeds the model's {model.config.max_position} positions")
  rows, owners = [], []
  for owner, tokens in enumerate(documents):
    for row in windows(tokens, length=length, context=context, start=start):
      rows.append(row)
      owners.append(owner)
  if not rows:
    raise ValueError("there is no text to score")
  total = np.zeros(len(documents))
  placement = Placement.of(mesh, model.config, batch).beside(params)
  (params,) = placement.put((params,))
  for first in range(0, len(rows), batch):
    part = rows[first : first + batch]
    # The last batch is filled up with rows that do not count: all share one compilation.
    part += [(r, t, np.zeros_like(c)) for r, t, c in part[:1] * (batch - len(part))]
    inputs = placement.put((params, *(np.stack(x) for x in zip(*part, strict=True))))
    with on_mesh(placement.mesh):
      if not first:
        hosts.compile_together(_nats, model, *inputs)
      nats = _nats(model, *inputs)
    owners_here = owners[first : first + batch]
    np.add.at(total, owners_here, hosts.whole(nats).astype(np.float64)[: len(owners_here)])
    if progress is not None:
      progress(min(first + batch, len(rows)), len(rows))
  return total
