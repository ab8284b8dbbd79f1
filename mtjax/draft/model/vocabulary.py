"""A draft model in its target's vocabulary: one tokenizer, another number of rows."""

import dataclasses
import functools

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.models import Model, Params
from mtjax.models.model import Config
from mtjax.types import Frontier, Output


@dataclasses.dataclass(frozen=True)
class InVocabulary:
  """A causal model whose logits have `rows` entries; the first `tokens` of them may be sampled.

  Families pad their embeddings to sizes that suit the hardware: models of one tokenizer then have
  different numbers of rows, and ids past the tokenizer mean nothing. Logits of ids from `tokens` on
  are -inf, whether the model has a row for them or not. So q = softmax(logits) is the model's
  distribution given that the token is one of the first `tokens`, with zeros behind: a distribution
  over the target's vocabulary as any other, and drafts of it are lossless. The target's own
  distribution is left as it is, and may emit any of its ids: one that the model has no row for is
  read as its last row. Its extra embeddings have the ids from `rows` on.

  Stands in a model's place where drafters call it; parameters are the model's.
  """

  model: Model
  rows: int
  tokens: int

  @functools.cached_property
  def config(self) -> Config:
    return dataclasses.replace(self.model.config, vocab_size=self.rows)

  def allocate(self, batch: int, capacity: int, dtype: DTypeLike | None = None) -> KVCache:
    return self.model.allocate(batch, capacity, dtype)

  def prefix(self, layers: int) -> "InVocabulary":
    return dataclasses.replace(self, model=self.model.prefix(layers))

  def forward(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
  ) -> Output:
    return self.segment(params, frontier, cache, rows, first=0, last=len(self.config.layers))[0]

  def segment(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
    *,
    first: int,
    last: int,
    hidden: Float[Array, "B T D"] | None = None,
  ) -> tuple[Output, Float[Array, "B T D"]]:
    size = self.model.config.vocab_size
    known = jnp.minimum(frontier.token, size - 1)
    if self.config.extra_embeddings:
      known = jnp.where(frontier.token >= self.rows, frontier.token - self.rows + size, known)
    output, hidden = self.model.segment(
      params, frontier.replace(token=known), cache, rows, first=first, last=last, hidden=hidden
    )
    return output._replace(logits=self._fitted(output.logits)), hidden

  def _fitted(self, logits: Float[Array, "B R V"]) -> Float[Array, "B R W"]:
    meant = logits[..., : self.tokens]
    missing = ((0, 0), (0, 0), (0, self.rows - meant.shape[-1]))
    return jnp.pad(meant, missing, constant_values=-jnp.inf)


def in_vocabulary(model: Model, *, rows: int, tokens: int) -> Model | InVocabulary:
  """Returns the draft model for a target whose logits have `rows` entries.

  tokens: size of the tokenizer that both were made for; ids behind are never drafted. The
  model itself is returned where it has those rows and the tokenizer fills them. Raises ValueError
  for a tokenizer without a token.
  """
  if tokens < 1:
    raise ValueError(f"a tokenizer must have at least 1 token, got {tokens}")
  size = model.config.vocab_size
  shared = min(tokens, size, rows)
  return model if size == rows == shared else InVocabulary(model, rows, shared)
