"""A model's embedding table, for inputs that are mixtures of its rows (`Frontier.vector`)."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree

from mtjax.models.config import TransformerConfig
from mtjax.models.linear import Embedding
from mtjax.models.model import Config
from mtjax.models.transformer import embedding_rows


@dataclasses.dataclass(frozen=True)
class EmbeddingAccess:
  """The rows of the embedding table and of extra embeddings, as functions of the parameters."""

  config: TransformerConfig

  @classmethod
  def of(cls, config: Config) -> "EmbeddingAccess":
    """Returns access to a model's table. Raises ValueError for a network of another kind."""
    if not isinstance(config, TransformerConfig):
      raise ValueError("only the inputs of a plain transformer can be mixtures of embeddings")
    return cls(config)

  def rows(self, params: PyTree, token: Int[Array, "*N"]) -> Float[Array, "*N D"]:
    """Returns the rows of tokens and of extra embeddings, as an entry's vector replaces them."""
    return _Rows(self.config).apply({"params": params}, token)

  def expected(self, params: PyTree, probs: Float[Array, "*N V"]) -> Float[Array, "*N D"]:
    """Returns the mean row of a token with these probabilities."""
    table = self.rows(params, jnp.arange(self.config.vocab_size))
    return probs.astype(table.dtype) @ table


class _Rows(nn.Module):
  config: TransformerConfig

  @nn.compact
  def __call__(self, token):
    c = self.config
    embedding = Embedding(c.vocab_size, c.dim, jnp.dtype(c.dtype), name="embedding")
    return embedding_rows(c, embedding, token)
