"""Which entries a pass of a denoising loop computes, and what it takes from earlier passes."""

from mtjax.diffusion.denoising.caches.any_order import AnyOrder
from mtjax.diffusion.denoising.caches.block_stale import BlockStale
from mtjax.diffusion.denoising.caches.delayed import Delayed
from mtjax.diffusion.denoising.caches.elastic import Elastic
from mtjax.diffusion.denoising.caches.exact_blocks import ExactBlocks
from mtjax.diffusion.denoising.caches.protocol import (
  CachePolicy,
  Pass,
  ShadowCachePolicy,
  VectorCachePolicy,
)
from mtjax.diffusion.denoising.caches.similarity_refreshed import SimilarityRefreshed
from mtjax.diffusion.denoising.caches.uncached import Uncached
from mtjax.diffusion.denoising.caches.vicinity import Vicinity

__all__ = [
  "AnyOrder",
  "BlockStale",
  "CachePolicy",
  "Delayed",
  "Elastic",
  "ExactBlocks",
  "Pass",
  "ShadowCachePolicy",
  "SimilarityRefreshed",
  "Uncached",
  "VectorCachePolicy",
  "Vicinity",
]
