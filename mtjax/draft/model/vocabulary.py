"""A draft model in its target's vocabulary: one tokenizer, other rows."""

import abc
import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.models import Model, Params
from mtjax.models.model import Config
from mtjax.types import Frontier, Output


@dataclasses.dataclass(frozen=True)
class _Fitted(abc.ABC):
  """A causal model that reads the target's ids and has logits for all `rows` of them.

  Stands in a model's place where drafters call it; parameters are the model's. The target's extra
  embeddings have the ids from `rows` on.
  """

  model: Model
  rows: int

  @functools.cached_property
  def config(self) -> Config:
    return dataclasses.replace(self.model.config, vocab_size=self.rows)

  def allocate(self, batch: int, capacity: int, dtype: DTypeLike | None = None) -> KVCache:
    return self.model.allocate(batch, capacity, dtype)

  def prefix(self, layers: int) -> "_Fitted":
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
  ) -> tuple[Output, Float[Array, "B F D"]]:
    size = self.model.config.vocab_size
    known = self._own(frontier.token)
    if self.config.extra_embeddings:
      known = jnp.where(frontier.token >= self.rows, frontier.token - self.rows + size, known)
    output, hidden = self.model.segment(
      params, frontier.replace(token=known), cache, rows, first=first, last=last, hidden=hidden
    )
    return output._replace(logits=self._fitted(output.logits)), hidden

  @abc.abstractmethod
  def _own(self, token: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Returns the model's row for each of the target's ids."""

  @abc.abstractmethod
  def _fitted(self, logits: Float[Array, "B R V"]) -> Float[Array, "B R W"]:
    """Returns the logits of the target's ids from those of the model's rows."""


@dataclasses.dataclass(frozen=True)
class InVocabulary(_Fitted):
  """A causal model whose logits have `rows` entries; the first `tokens` of them may be sampled.

  Families pad their embeddings to sizes that suit the hardware: models of one tokenizer then have
  different numbers of rows, and ids past the tokenizer mean nothing. Logits of ids from `tokens` on
  are -inf, whether the model has a row for them or not. So q = softmax(logits) is the model's
  distribution given that the token is one of the first `tokens`, with zeros behind: a distribution
  over the target's vocabulary as any other, and drafts of it are lossless. The target's own
  distribution is left as it is, and may emit any of its ids: one that the model has no row for is
  read as its last row.
  """

  tokens: int

  def _own(self, token: Int[Array, "B T"]) -> Int[Array, "B T"]:
    return jnp.minimum(token, self.model.config.vocab_size - 1)

  def _fitted(self, logits: Float[Array, "B R V"]) -> Float[Array, "B R W"]:
    meant = logits[..., : self.tokens]
    missing = ((0, 0), (0, 0), (0, self.rows - meant.shape[-1]))
    return jnp.pad(meant, missing, constant_values=-jnp.inf)


@dataclasses.dataclass(frozen=True)
class TrimmedVocabulary(_Fitted):
  """A causal model with a row for each of `ids`, which are the target's, and one for all others.

  A small draft spends most of its weights on an embedding and a head, and few tokens are most of
  every text (FR-Spec, 2502.14856; the map from draft to target ids of EAGLE-3, 2503.01840). A token
  that is not in `ids` is read as the last row and never drafted: logits of its id are -inf, and the
  last row's own are left out. So q = softmax(logits) is the model's distribution given that the
  token is one of `ids`, exactly: a distribution over the target's vocabulary as any other.
  """

  ids: tuple[int, ...] = dataclasses.field(repr=False)

  def __post_init__(self):
    size = self.model.config.vocab_size
    if size != len(self.ids) + 1:
      raise ValueError(
        f"the map has {len(self.ids)} ids, and with one row for other tokens the draft model must "
        f"have vocab_size {len(self.ids) + 1}, got {size}"
      )
    if wrong := [i for i in self.ids if not 0 <= i < self.rows]:
      raise ValueError(f"the map has the id {wrong[0]}, and the target's are 0 to {self.rows - 1}")
    if len(set(self.ids)) < len(self.ids):
      raise ValueError("the map has an id twice: each row must have a token of its own")

  @functools.cached_property
  def _row(self) -> Int[np.ndarray, " W"]:
    row = np.full(self.rows, len(self.ids), np.int32)
    row[list(self.ids)] = np.arange(len(self.ids))
    return row

  def _own(self, token: Int[Array, "B T"]) -> Int[Array, "B T"]:
    return jnp.asarray(self._row)[jnp.minimum(token, self.rows - 1)]

  def _fitted(self, logits: Float[Array, "B R V"]) -> Float[Array, "B R W"]:
    # Three times as fast on a CPU as to gather all of the target's ids.
    nothing = jnp.full((*logits.shape[:-1], self.rows), -jnp.inf, logits.dtype)
    return nothing.at[..., np.asarray(self.ids)].set(logits[..., :-1], unique_indices=True)


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
