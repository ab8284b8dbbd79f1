"""The entry point of attention for models: contract, checks and choice of implementation."""

from typing import get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels_pallas.frontier_attention import blocks, reference
from kernels_pallas.frontier_attention import dispatch as choice
from kernels_pallas.frontier_attention.cache_blocks import Cache, own_heads
from kernels_pallas.frontier_attention.dispatch import Implementation
from kernels_pallas.frontier_attention.score import Scoring
from kernels_pallas.frontier_attention.xla import attention as xla


def frontier_attention(
  q: Float[Array, "B T H D"],
  cache_k: Float[Array, "B N S D"] | None,
  cache_v: Float[Array, "B N S D"] | None,
  lengths: Int[Array, " B"] | None,
  k: Float[Array, "B G T D"],
  v: Float[Array, "B G T D"],
  stamp: Int[Array, "B K T"],
  lo: Int[Array, "B K T"],
  hi: Int[Array, "B K T"],
  *,
  page_table: Int[Array, "B M"] | None = None,
  position: Int[Array, "B T"] | None = None,
  cache_position: Int[Array, "B S"] | None = None,
  window: int | None = None,
  hidden: Int[Array, "B T"] | None = None,
  own: Bool[Array, "B T"] | None = None,
  soft_cap: float | None = None,
  scale: float | None = None,
  kv_scales: tuple[Float[Array, "B N S"], Float[Array, "B N S"]] | None = None,
  first_head: Int[Array, ""] | int | None = None,
  block_sizes: tuple[int, int] | None = None,
  implementation: Implementation | None = None,
) -> tuple[Float[Array, "B T H D"], Float[Array, "B T H"]]:
  """Computes attention of T frontier entries over S cache slots and over each other.

  Entry i sees every committed slot s < lengths[b], and fresh entry j iff
  lo[b,:,j] <= stamp[b,:,i] < hi[b,:,j] (but not `hidden[b,i]`, and itself where `own[b,i]`). With
  `window`, both also need |position_i - position_key| < window. Scores are float32; `scale`
  defaults to D ** -0.5; `soft_cap` c maps a score s to c * tanh(s / c). Returns the output in q's
  dtype and the float32 log-sum-exp of the scores, so that partial results over disjoint keys merge
  exactly (`merged`). An entry that sees nothing outputs 0 (lse = -inf). The contents of slots past
  the length, in pages that no table names, or in entries that nobody sees, may be NaN.

  page_table: the cache is in pages, cache_k and cache_v [P, G, page, D]; page m of row b is
    page_table[b, m], and slot m * page + i its i-th. Entries past the length may be anything.
  kv_scales: of an int8 or fp8 cache, shaped as it is without D: what its keys and its values are
    multiplied by.
  first_head: the cache holds key heads of several layers, in cache_k and cache_v [B, N, S, D] with
    N >= G (N = G without it): heads first_head, ..., first_head + G - 1 are this layer's. XLA reads
    them in place; a kernel gets a copy of them.
  block_sizes: maximum numbers of fresh entries and cache slots per block; None: those that the
    implementation found best. Results differ by rounding only.
  implementation: a name never falls back to another; None is the best one here (`chosen`).

  Raises ValueError for shapes that do not fit, for a window without positions, and for a named
  implementation that cannot compute this; the message says why.
  """
  _check(q, k, v, stamp, position, window, block_sizes)
  cache = _cache(
    k, cache_k, cache_v, lengths, page_table, kv_scales, cache_position, window, first_head
  )
  if (implementation or choice.kernel_here() or "xla") != "xla":
    cache = own_heads(cache, k.shape[1])
  dims = stamp.shape[1] + (window is not None)
  name = implementation or choice.chosen(q, k, cache, dims).name
  if name not in get_args(Implementation):
    raise ValueError(
      f"unknown implementation {name!r}; there are: {', '.join(get_args(Implementation))}"
    )
  if reason := choice.why_not(name, q, k, cache, dims):
    raise ValueError(f"the {name.upper()} kernel {reason}")
  queries, keys = blocks.labels_of(
    stamp, lo, hi, hidden=hidden, own=own, position=position, window=window
  )
  scoring = Scoring(q.shape[-1] ** -0.5 if scale is None else scale, soft_cap, window)
  if name == "reference":
    return reference.attend(q, k, v, queries, keys, cache, position, scoring)
  if name == "xla":
    sizes = xla.XlaSizes() if block_sizes is None else xla.XlaSizes(*block_sizes)
    return xla.attend(q, k, v, queries, keys, cache, position, scoring, sizes)
  # Pallas takes long to import, and each of these is for other machines.
  if name.startswith("tpu"):
    from kernels_pallas.frontier_attention.tpu import kernel
    from kernels_pallas.frontier_attention.tpu.kernel import TileSizes as KernelSizes
  else:
    from kernels_pallas.frontier_attention.gpu import call as kernel
    from kernels_pallas.frontier_attention.gpu.call import CallSizes as KernelSizes

  sizes = KernelSizes() if block_sizes is None else KernelSizes.of(*block_sizes)
  interpret = name.endswith("interpret")
  return kernel.attend(q, k, v, queries, keys, cache, position, scoring, sizes, interpret)


def _check(q, k, v, stamp, position, window, block_sizes):
  B, T, H, D = q.shape
  if k.shape != v.shape or k.shape[0] != B or k.shape[2:] != (T, D):
    raise ValueError(f"k {k.shape} and v {v.shape} must be [B, G, T, D] for q {q.shape}")
  if H % k.shape[1]:
    raise ValueError(f"{H} query heads do not divide among {k.shape[1]} key heads")
  if stamp.ndim != 3 or stamp.shape[0] != B or stamp.shape[2] != T:
    raise ValueError(f"stamp {stamp.shape} must be [B={B}, K, T={T}]")
  for size in block_sizes or ():
    if size < 1:
      raise ValueError(f"block_sizes must be at least 1, got {block_sizes}")
  if window is not None:
    if window < 1:
      raise ValueError(f"window must be at least 1, got {window}")
    if position is None:
      raise ValueError("a window goes by position: give position (and cache_position)")
    if position.shape != (B, T):
      raise ValueError(f"position {position.shape} must be [B={B}, T={T}]")


def _cache(
  k, cache_k, cache_v, lengths, table, scales, position, window, first_head
) -> Cache | None:
  if (cache_k is None) != (cache_v is None) or (cache_k is None) != (lengths is None):
    raise ValueError("cache_k, cache_v and lengths must be given together, or none of them")
  if cache_k is None:
    others = dict(
      page_table=table, kv_scales=scales, cache_position=position, first_head=first_head
    )
    for name, value in others.items():
      if value is not None:
        raise ValueError(f"{name} belongs to a cache, but there is no cache")
    return None
  B, G, _, D = k.shape
  if first_head is not None:
    heads = cache_k.shape[1] if cache_k.ndim == 4 else 0
    if table is not None or cache_k.shape != (B, heads, *cache_k.shape[2:3], D) or heads < G:
      raise ValueError(
        f"with first_head a cache {cache_k.shape} must be [B, N, S, D] for k {k.shape}, with N at "
        "least G, and has no pages"
      )
  elif table is None:
    if cache_k.shape[:2] != (B, G) or cache_k.shape[3] != D:
      raise ValueError(f"cache {cache_k.shape} must be [B, G, S, D] for k {k.shape}")
  else:
    if cache_k.ndim != 4 or cache_k.shape[1] != G or cache_k.shape[3] != D:
      raise ValueError(f"pages {cache_k.shape} must be [P, G, page, D] for k {k.shape}")
    if table.ndim != 2 or table.shape[0] != B:
      raise ValueError(f"page_table {table.shape} must be [B={B}, pages of a row]")
  if cache_v.shape != cache_k.shape:
    raise ValueError(f"cache_v {cache_v.shape} must have the shape of cache_k {cache_k.shape}")
  narrow = cache_k.dtype.itemsize == 1
  if narrow != (scales is not None):
    raise ValueError(f"an 8-bit cache, and no other, needs kv_scales: it is {cache_k.dtype}")
  for scale in scales or ():
    if scale.shape != cache_k.shape[:3]:
      raise ValueError(f"kv_scales {scale.shape} must be {cache_k.shape[:3]}, one per key and head")
  if first_head is not None:
    first_head = jnp.asarray(first_head, jnp.int32)
  cache = Cache(cache_k, cache_v, lengths, table, scales, position, first_head)
  if window is not None and position is None:
    raise ValueError("a window goes by position: give position (and cache_position)")
  if position is not None and position.shape != (B, cache.capacity):
    raise ValueError(f"cache_position {position.shape} must be [B={B}, S={cache.capacity}]")
  return cache
