"""The committed prefix: keys and values that will not change any more.

One rule decides exactness: an entry may be committed iff its token, everything it saw, and
anything else it was conditioned on are final.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from mtjax.types import LayerKV


@struct.dataclass
class KVCache:
  """Append-only keys and values, any order of positions, each row with its own length.

  Slots >= length hold nothing: no reader may let them matter, and no writer fills them except
  with the next committed entries.
  """

  layers: tuple[LayerKV, ...]  # each k, v: [B, G, S, D]; one buffer a layer, updated in place
  position: Int[Array, "B S"]
  length: Int[Array, " B"]

  @property
  def capacity(self) -> int:
    return self.position.shape[1]

  def commit(
    self,
    kv: Sequence[LayerKV],
    position: Int[Array, "B T"],
    path: Int[Array, "B P"],
    count: Int[Array, " B"],
  ) -> "KVCache":
    """Appends frontier entries path[b, 0], ..., path[b, count[b] - 1], in that order.

    `kv` and `position` are the frontier's; path entries at or past count[b] are ignored. The
    caller sees to it that length + count <= capacity (a traced value cannot raise): what would
    not fit is dropped, and nothing committed is overwritten.
    """
    steps = path.shape[1]
    if steps > self.capacity:
      raise ValueError(f"a path of {steps} entries cannot fit a cache of {self.capacity} slots")
    keep = jnp.arange(steps) < count[:, None]
    slot = self.length[:, None] + jnp.arange(steps)

    def layer(old: LayerKV, new: LayerKV) -> LayerKV:
      if new.k.shape[2] > 1 or steps > 1:
        new = LayerKV(*(jnp.take_along_axis(x, path[:, None, :, None], axis=2) for x in new))
      return LayerKV(
        *(_write(o, n.astype(o.dtype), slot, keep) for o, n in zip(old, new, strict=True))
      )

    new_position = jnp.take_along_axis(position, path, axis=1)
    return KVCache(
      layers=tuple(layer(o, n) for o, n in zip(self.layers, kv, strict=True)),
      position=_write(self.position[:, None, :, None], new_position[:, None, :, None], slot, keep)[
        :, 0, :, 0
      ],
      length=self.length + jnp.minimum(count, steps).astype(jnp.int32),
    )


def _write(old, new, slot, keep):
  """old[b, :, slot[b, p]] = new[b, :, p] where keep[b, p]; what would not fit is dropped."""
  if old.shape[0] == 1:
    return _write_run(old, new, slot[0], keep[0])
  batch = jnp.arange(old.shape[0])[:, None]
  # Out-of-range slots are dropped, never clamped: a clamped write would hit committed entries.
  slot = jnp.where(keep, slot, old.shape[2])
  return old.at[batch, :, slot].set(new.swapaxes(1, 2), mode="drop")


def _write_run(old, new, slot, keep):
  """One row: its slots are consecutive, and a slice is updated in place where a scatter is not.

  Near the end of the cache the slice begins earlier than the first slot, and keeps what is there.
  """
  size = new.shape[2]
  first = jnp.minimum(slot[0], old.shape[2] - size)
  source = jnp.arange(size) - (slot[0] - first)
  inside = (source >= 0) & keep[jnp.maximum(source, 0)]
  if size > 1:
    new = jnp.take(new, jnp.maximum(source, 0), axis=2)
  here = jax.lax.dynamic_slice_in_dim(old, first, size, axis=2)
  new = jnp.where(inside[None, None, :, None], new, here)
  return jax.lax.dynamic_update_slice_in_dim(old, new, first, axis=2)


def allocate(
  *,
  batch: int,
  capacity: int,
  layers: int,
  kv_heads: int,
  head_dim: int,
  dtype: jnp.dtype = jnp.float32,
) -> KVCache:
  """An empty cache of `capacity` slots a row. Raises ValueError for a size below one."""
  for name, value in dict(batch=batch, capacity=capacity, layers=layers).items():
    if value < 1:
      raise ValueError(f"a cache needs {name} >= 1, got {value}")
  shape = (batch, kv_heads, capacity, head_dim)
  return KVCache(
    layers=tuple(LayerKV(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(layers)),
    position=jnp.zeros((batch, capacity), jnp.int32),
    length=jnp.zeros((batch,), jnp.int32),
  )
