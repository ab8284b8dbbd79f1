"""Soft inputs: an entry's vector is a mixture of embeddings, in place of a token's."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.models import Params
from mtjax.models.access import EmbeddingAccess
from mtjax.types import Frontier

# Puts vectors in place of some tokens of a frontier, whose positions say where they stand.
Soften = Callable[[Frontier], Frontier]


def merged_with_mask(network: MaskedNetwork, params: Params, share: Float[Array, "B S"]) -> Soften:
  """Returns what makes the input of each entry p E[token] + (1 - p) E[MASK], with p its `share`.

  The length of the vector is the mixture of the two lengths, as Diffulex has it for DMax. Entries
  of share 1 are tokens as they are.
  """
  access = EmbeddingAccess.of(network.model.config)

  def soften(frontier: Frontier) -> Frontier:
    p = jnp.take_along_axis(share, frontier.position, axis=1)
    own = access.rows(params, frontier.token)
    mask = access.rows(params, jnp.full((1, 1), network.mask_id))
    weight = p[:, :, None].astype(own.dtype)
    mixture = weight * own + (1 - weight) * mask
    wanted = weight * _length(own) + (1 - weight) * _length(mask)
    vector = mixture * wanted / jnp.maximum(_length(mixture), 1e-12)
    return frontier_lib.with_vectors(frontier, vector, p < 1)

  return soften


def added_to_masks(network: MaskedNetwork, params: Params, more: Float[Array, "B S D"]) -> Soften:
  """Returns what adds a vector to the embedding of each mask; other entries stay tokens."""
  access = EmbeddingAccess.of(network.model.config)

  def soften(frontier: Frontier) -> Frontier:
    index: Int[Array, "B T 1"] = frontier.position[:, :, None]
    vector = jnp.take_along_axis(more, index, axis=1)
    own = access.rows(params, frontier.token)
    return frontier_lib.with_vectors(frontier, own + vector, frontier.token == network.mask_id)

  return soften


def _length(vector: Float[Array, "*N D"]) -> Float[Array, "*N 1"]:
  return jnp.linalg.norm(vector, axis=-1, keepdims=True)
