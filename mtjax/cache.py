"""The committed prefix: keys and values that will not change any more.

One rule decides exactness: an entry may be committed iff its token, everything it saw, and
anything else it was conditioned on are final.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import AbstractMesh, Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from kernels_pallas.frontier_attention import dispatch as choice
from mtjax.display.short import short_repr
from mtjax.sharding import CACHE, on_parts, parts_here, place, sharding_of
from mtjax.types import LayerKV


class KVCache(struct.PyTreeNode):
  """Append-only keys and values, in any order of positions; each row has its own length.

  Slots >= length hold nothing: no result may depend on them, and only the next committed entries
  are written there.
  """

  # Each k, v: [B, G, S, D]; one buffer per layer or stack of layers, updated in place.
  layers: tuple[LayerKV, ...]
  position: Int[Array, "B S"]
  length: Int[Array, " B"]  # number of committed entries per row

  __repr__ = short_repr

  @property
  def capacity(self) -> int:
    """The number of slots per row."""
    return self.position.shape[1]

  def commit(
    self,
    kv: Sequence[LayerKV],
    position: Int[Array, "B T"],
    path: Int[Array, "B P"],
    count: Int[Array, " B"],
  ) -> "KVCache":
    """Appends frontier entries path[b, 0], ..., path[b, count[b] - 1], in that order.

    `kv` and `position` are the frontier's; path entries from count[b] on are ignored. The caller
    must ensure length + count <= capacity, because a traced value cannot raise: what does not fit
    is dropped, and nothing committed is overwritten. Raises ValueError for a path that is longer
    than the cache.

    On a mesh each device writes its own rows, heads and slots, and nothing is exchanged.
    """
    steps = path.shape[1]
    if steps > self.capacity:
      raise ValueError(
        f"a path of {steps} entries cannot fit a cache of {self.capacity} slots: allocate more"
      )
    count = jnp.minimum(count, steps).astype(jnp.int32)
    fresh = jax.tree.map(lambda _: "bh..", tuple(kv))
    (cache,) = on_parts(
      _appended,
      self,
      tuple(kv),
      position,
      path,
      count,
      roles=(_by_roles(self, lambda _, roles: roles), fresh, "b.", "b.", "b"),
      like=(0,),
      split=CACHE,
    )
    return cache


def _appended(part, cache: KVCache, kv, position, path, count) -> tuple[KVCache]:
  """Returns the cache with the entries path[b, :count[b]]; `cache` is one part of all slots."""
  steps, capacity = path.shape[1], cache.capacity
  length = cache.length - part * capacity  # of this part: below 0 before it, above past its end
  in_runs = _in_runs(length.shape[0])
  size, first = steps, length
  if in_runs:
    # A run that would not fit begins earlier, and keeps what is there.
    size = min(max(steps, _MIN_RUN), capacity)
    first = jnp.clip(length, 0, capacity - size)
  slot = first[:, None] + jnp.arange(size)
  source = slot - length[:, None]
  keep = (source >= 0) & (source < count[:, None]) & (slot >= 0)
  path = jnp.take_along_axis(path, jnp.clip(source, 0, steps - 1), axis=1)
  write = _write_runs if in_runs else _scatter

  def layer(old: LayerKV, new: LayerKV) -> LayerKV:
    if new.k.shape[2] > 1:
      new = LayerKV(*(jnp.take_along_axis(x, path[:, None, :, None], axis=2) for x in new))
    return LayerKV(
      *(write(o, n.astype(o.dtype), slot, keep, 2) for o, n in zip(old, new, strict=True))
    )

  new_position = jnp.take_along_axis(position, path, axis=1)
  after = KVCache(
    layers=tuple(layer(o, n) for o, n in zip(cache.layers, kv, strict=True)),
    position=write(cache.position, new_position, slot, keep, 1),
    length=cache.length + count,
  )
  return (after,)


# For shorter runs XLA puts the slots of a TPU's cache outermost, and copies the cache for that.
_MIN_RUN = 8


def _in_runs(batch: int) -> bool:
  """Returns true where a row's slots are written as one slice, false where by a scatter.

  A TPU updates a slice in place, but copies the whole cache for a scatter over rows. A CPU scatters
  in place, in less time than it takes for a slice per row.
  """
  return batch == 1 or choice.platform_here() == "tpu"


def _write_runs(old, new, slot, keep, axis):
  """Returns old with old[b, slot[b, n]] = new[b, n] along `axis`, where keep[b, n].

  The slots of a row must be consecutive. new: one entry per slot, or one for all.
  """
  for row in range(old.shape[0]):
    start, size, across = ([n] * old.ndim for n in (0, 1, 1))
    start[0], start[axis] = row, slot[row, 0]
    size[1:] = old.shape[1:]
    size[axis] = across[axis] = slot.shape[1]
    here = jax.lax.dynamic_slice(old, start, size)
    run = jnp.where(keep[row].reshape(across), new[row : row + 1], here)
    old = jax.lax.dynamic_update_slice(old, run, start)
  return old


def _scatter(old, new, slot, keep, axis):
  """Returns what `_write_runs` does, for slots in any order."""
  # Out-of-range slots are dropped, never clamped: a clamped write would hit committed entries.
  slot = jnp.where(keep, slot, old.shape[axis])
  index = [jnp.arange(old.shape[0])[:, None], *[slice(None)] * (axis - 1), slot]
  return old.at[tuple(index)].set(new.swapaxes(1, axis), mode="drop")


def allocate(
  *,
  batch: int,
  capacity: int,
  heads: Sequence[int],
  head_dim: int | Sequence[int],
  dtype: DTypeLike = jnp.float32,
) -> KVCache:
  """Returns an empty cache of `capacity` slots per row, or a few more if the kernel needs them.

  On the mesh of `jax.set_mesh` it lies as `cache_shardings` says, and has so many slots that the
  sequence axis divides them.

  `heads`: the number of key heads of each layer, or of all layers of a stack together
  (`mtjax.models.stacking`). `head_dim`: their size, or one size per layer. The kernel is the
  platform's (`slots_here`). Raises ValueError for a size below one.
  """
  for name, value in dict(batch=batch, capacity=capacity, layers=len(heads)).items():
    if value < 1:
      raise ValueError(f"{name} of a cache must be at least 1, got {value}")
  sizes = [head_dim] * len(heads) if isinstance(head_dim, int) else list(head_dim)
  slots = max(choice.slots_here(capacity, size) for size in {*sizes})
  parts = parts_here("s", CACHE)
  capacity = -(-slots // parts) * parts
  shapes = [(batch, number, capacity, size) for number, size in zip(heads, sizes, strict=True)]
  cache = KVCache(
    layers=tuple(LayerKV(jnp.zeros(x, dtype), jnp.zeros(x, dtype)) for x in shapes),
    position=jnp.zeros((batch, capacity), jnp.int32),
    length=jnp.zeros((batch,), jnp.int32),
  )
  return _by_roles(cache, lambda x, roles: place(x, roles, CACHE))


def cache_shardings(cache: KVCache, mesh: Mesh | AbstractMesh) -> KVCache:
  """Returns the NamedShardings of a cache (arrays or ShapeDtypeStructs) on a mesh.

  Rows are split over the axis `data`, key heads over `model` and slots over `sequence`, each only
  if the axis divides it: otherwise it is whole on every device of that axis.
  """
  return _by_roles(cache, lambda x, roles: sharding_of(x.shape, roles, mesh, CACHE))


def _by_roles(cache: KVCache, apply: Callable) -> KVCache:
  """Returns the cache with apply(leaf, its letters for `mtjax.sharding.spec_of`) in each place."""
  leaves, tree = jax.tree.flatten(cache)
  roles = [*["bhs."] * (len(leaves) - 2), "bs", "b"]  # of layers, position and length
  return jax.tree.unflatten(tree, map(apply, leaves, roles))
