"""Inputs of frontier attention: every mask, caches of every kind, NaN in unseen places."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from mtjax import frontier as builders
from mtjax.types import Frontier
from tests.compiled import Compiled

F = Compiled(builders)


@dataclasses.dataclass(frozen=True)
class Case:
  """A shape, and the features of the operation that it uses."""

  mask: str
  entries: int = 24
  lengths: tuple[int, ...] | None = (0, 21)  # None: no cache
  capacity: int = 40
  page: int | None = None
  heads: int = 4
  kv_heads: int = 2
  width: int = 8
  window: int | None = None
  soft_cap: float | None = None
  scale: float | None = None
  dtype: str = "float32"
  cache_dtype: str | None = None
  ordered: bool = False  # the cache is in the order of positions

  @property
  def batch(self) -> int:
    return 2 if self.lengths is None else len(self.lengths)


def _ranks(rng, batch, entries):
  return np.stack([rng.permutation(entries) for _ in range(batch)])


def _masks(rng, batch, T):
  token = np.zeros((batch, T), np.int32)
  half = token[:, : T // 2]
  rank = _ranks(rng, batch, T)
  short = _ranks(rng, batch, T // 2)
  index = np.broadcast_to(np.arange(T), token.shape)
  parent = np.stack([[-1, *(rng.integers(-1, n) for n in range(1, T))] for _ in range(batch)])
  documents = np.sort(rng.integers(0, 4, (batch, T)), axis=1)[:, ::-1]

  def canvas():
    return F.bidirectional(token, length=np.full((batch,), T - 3))

  return dict(
    causal=lambda: F.causal(token, length=np.full((batch,), T - 2)),
    tree=lambda: F.tree(token, parent),
    invalid_tree=lambda: F.tree(token, parent, valid=index < T - 4),
    packed=lambda: F.packed(token, documents),
    canvas=canvas,
    nobody=lambda: F.causal(token, length=np.zeros((batch,), np.int32)),
    content=lambda: F.content(token, index, rank),
    two_stream=lambda: F.two_stream(half, half, index[:, : T // 2], short),
    any_subset=lambda: F.concatenate(
      F.content(half, index[:, : T // 2], short), F.query(half, index[:, T // 2 :], short * 0 + 5)
    ),
    block_diffusion=lambda: F.block_diffusion(half, half, index[:, : T // 2] // 3),
    block_causal=lambda: F.block_causal(token, index // 5),
    block_local=lambda: F.block_local(token, rank // 5),
    documents_x_order=lambda: F.both(F.packed(token, documents), F.content(token, index, rank)),
    hidden=lambda: canvas().replace(hidden=np.where(index % 3 == 0, (index * 7) % T, -1)),
    # Queries come first: nobody else sees them, and they are last among the sorted keys.
    own=lambda: F.concatenate(
      F.query(half, index[:, T // 2 :], short).replace(own=index[:, T // 2 :] % 2 == 0),
      F.content(half, index[:, : T // 2], short).replace(own=index[:, : T // 2] % 2 == 0),
    ),
  )


MASKS = tuple(name for name in _masks(np.random.default_rng(0), 1, 8) if name != "nobody")


def frontier(mask: str, batch: int, entries: int, seed: int = 0) -> Frontier:
  return _masks(np.random.default_rng(seed), batch, entries)[mask]()


def inputs(case: Case, seed: int = 0) -> dict:
  """Returns the arguments of frontier_attention by name; what is made once is kept."""
  return dict(_inputs(case, seed))


@functools.cache
def _inputs(case: Case, seed: int) -> dict:
  rng = np.random.default_rng(seed)
  given = frontier(case.mask, case.batch, case.entries, seed)

  def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  B, T, G, D = case.batch, case.entries, case.kv_heads, case.width
  fresh = [normal(B, G, T, D) for _ in range(2)]
  dense = np.asarray(F.as_dense(given))
  for x in fresh:
    x[np.broadcast_to(~dense.any(axis=1)[:, None], x.shape[:3])] = np.nan
  labels = {name: getattr(given, name) for name in ("stamp", "lo", "hi", "hidden", "own")}
  found = dict(
    q=jnp.asarray(normal(B, T, case.heads, D), case.dtype),
    k=jnp.asarray(fresh[0], case.dtype),
    v=jnp.asarray(fresh[1], case.dtype),
    **{name: None if x is None else jnp.asarray(x) for name, x in labels.items()},
    soft_cap=case.soft_cap,
    scale=case.scale,
    window=case.window,
    cache_k=None,
    cache_v=None,
    lengths=None,
  )
  if case.lengths is not None:
    found |= _cache(case, rng, normal)
  if case.window is not None:
    start = 0 if case.lengths is None else np.asarray(case.lengths)[:, None]
    found["position"] = jnp.asarray(np.asarray(given.position) + start, jnp.int32)
  return found


def _cache(case, rng, normal) -> dict:
  B, G, S, D = case.batch, case.kv_heads, case.capacity, case.width
  lengths = np.asarray(case.lengths)
  k, v = normal(B, G, S, D), normal(B, G, S, D)
  scales = None
  if case.cache_dtype is not None:
    scales = [np.abs(x).max(axis=-1) / 127 + 1e-3 for x in (k, v)]
    k, v = (np.round(x / s[..., None]) for x, s in zip((k, v), scales, strict=True))
  stale = np.arange(S) >= lengths[:, None]
  dirt = 77 if case.cache_dtype else np.nan
  for x in (k, v):
    x[np.broadcast_to(stale[:, None], x.shape[:3])] = dirt
  for x in scales or ():
    x[np.broadcast_to(stale[:, None], x.shape)] = np.nan
  found = dict(lengths=jnp.asarray(lengths, jnp.int32), page_table=None, kv_scales=None)
  if case.window is not None:
    # Committed in any order: the positions of a prefix are shuffled.
    order = np.arange if case.ordered else rng.permutation
    position = np.stack([np.r_[order(n), rng.integers(0, 99, S - n)] for n in lengths])
    found["cache_position"] = jnp.asarray(position, jnp.int32)
  if case.page is not None:
    k, v, scales, found["page_table"] = _pages(case, rng, k, v, scales)
  dtype = case.cache_dtype or case.dtype
  found["cache_k"], found["cache_v"] = jnp.asarray(k, dtype), jnp.asarray(v, dtype)
  if scales is not None:
    found["kv_scales"] = tuple(jnp.asarray(x, jnp.float32) for x in scales)
  return found


def _pages(case, rng, k, v, scales):
  """Returns the same rows in pages, scattered among others; unused table entries are wrong."""
  count = case.capacity // case.page
  place = rng.permutation(case.batch * count + 3)

  def cut(x):
    size = len(place), x.shape[1], case.page, *x.shape[3:]
    pages = np.full(size, 77.0 if case.cache_dtype else np.nan)
    rows = x.reshape(*x.shape[:2], count, case.page, *x.shape[3:]).swapaxes(1, 2)
    pages[place[: case.batch * count]] = rows.reshape(-1, *pages.shape[1:])
    return pages

  table = place[: case.batch * count].reshape(case.batch, count).astype(np.int32)
  used = -(-np.asarray(case.lengths) // case.page)
  table[np.arange(count) >= used[:, None]] = 1 << 20
  return cut(k), cut(v), None if scales is None else [cut(x) for x in scales], jnp.asarray(table)
