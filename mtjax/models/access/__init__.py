"""The inside of a network, for what decides between its layers."""

from mtjax.models.access.embeddings import EmbeddingAccess
from mtjax.models.access.layers import LayerAccess, Projected

__all__ = ["EmbeddingAccess", "LayerAccess", "Projected"]
