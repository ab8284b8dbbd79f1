"""Keys of whole canvases, and passes that compute some entries over the keys of the others."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.sharding import CACHE, on_parts
from mtjax.types import Frontier, LayerKV


def allocate(network: MaskedNetwork, job: Job) -> KVCache:
  """Returns room for the keys of whole canvases: slot s is that of the entry at position s.

  `length` is 0 and means nothing: what a pass sees is chosen for each pass (`without`).
  """
  return network.model.allocate(job.prompt.shape[0], job.size)


def chosen(wanted: Bool[Array, "B S"], size: int) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
  """Returns the first `size` wanted positions per row, in order, and which of them are any."""
  index = jnp.argsort(~wanted, axis=1, stable=True)[:, :size]
  return index, jnp.arange(size) < jnp.sum(wanted, axis=1, keepdims=True)


def part_of_canvas(
  token: Int[Array, "B S"], index: Int[Array, "B T"], valid: Bool[Array, "B T"]
) -> Frontier:
  """Returns some entries of a canvas, all of which see each other."""
  frontier = frontier_lib.bidirectional(jnp.take_along_axis(token, index, axis=1))
  hi = jnp.where(valid[:, None, :], frontier.hi, frontier.lo)
  return frontier.replace(position=index.astype(jnp.int32), hi=hi)


def without(kv: KVCache, wanted: Bool[Array, "B S"], end: Int[Array, " B"]) -> KVCache:
  """Returns a cache of the entries before `end` that are not wanted."""
  place = jnp.arange(kv.capacity)
  more = kv.capacity - wanted.shape[1]
  kept = ~jnp.pad(wanted, ((0, 0), (0, more))) & (place < end[:, None])
  order = jnp.argsort(~kept, axis=1, stable=True)

  def gather(x):
    (taken,) = on_parts(_taken, x, order, roles=("bh..", "b."), like=(0,))
    return taken

  return KVCache(
    layers=tuple(LayerKV(*map(gather, layer)) for layer in kv.layers),
    position=order.astype(jnp.int32),
    length=jnp.sum(kept, axis=1, dtype=jnp.int32),
  )


def written(
  kv: KVCache, fresh: Sequence[LayerKV], index: Int[Array, "B T"], valid: Bool[Array, "B T"]
) -> KVCache:
  """Returns the keys with those of valid entries replaced."""

  def layer(old: LayerKV, new: LayerKV) -> LayerKV:
    return LayerKV(*(scattered(o, n, index, valid) for o, n in zip(old, new, strict=True)))

  layers = tuple(layer(o, n) for o, n in zip(kv.layers, fresh, strict=True))
  return kv.replace(layers=layers)


def scattered(
  old: Float[Array, "B G S D"],
  new: Float[Array, "B G T D"],
  index: Int[Array, "B T"],
  valid: Bool[Array, "B T"],
) -> Float[Array, "B G S D"]:
  """Returns old with old[b, :, index[b, t]] = new[b, :, t] where valid[b, t].

  On a mesh each device writes its own rows, heads and slots, and nothing is exchanged.
  """
  roles = ("bhs.", "bh..", "b.", "b.")
  (out,) = on_parts(_scattered, old, new, index, valid, roles=roles, like=(0,), split=CACHE)
  return out


def _scattered(part, old, new, index, valid):
  size = old.shape[2]
  slot = index - part * size
  slot = jnp.where(valid & (slot >= 0), slot, size)
  rows = jnp.arange(old.shape[0])[:, None]
  return (old.at[rows, :, slot].set(new.swapaxes(1, 2).astype(old.dtype), mode="drop"),)


def _taken(part, x, order):
  del part  # all slots of a row are needed
  return (jnp.take_along_axis(x, order[:, None, :, None], axis=2),)


def compute(
  network: MaskedNetwork,
  params: Params,
  job: Job,
  kv: KVCache,
  now: Pass,
  *,
  whole: Bool[Array, " B"],
  wanted: Bool[Array, "B S"],
  sizes: Sequence[int],
) -> tuple[Float[Array, "B W V"], KVCache]:
  """Returns the window's logits, and the keys after the pass.

  Active rows with `whole` compute their canvas, the others the entries `wanted` over the keys of
  the rest. Such a pass has as many entries as the smallest of the ascending `sizes` that holds
  those of every row; the caller makes a row `whole` that wants more than the largest. A position
  whose source is not wanted has no logits of its own: they mean nothing.
  """
  batch, width = now.window.index.shape
  whole, part = now.active & whole, now.active & ~whole
  wanted &= part[:, None]
  none = jnp.zeros((batch, width, network.model.config.vocab_size), jnp.float32)
  source = network.sources(now.window.index)

  def of_whole(kv: KVCache):
    output = network.model.forward(params, network.canvas(now.token, job.end), None, source)
    index = jnp.broadcast_to(jnp.arange(job.size), job.prompt.shape)
    valid = whole[:, None] & (index < job.end[:, None])
    return network.logits(output), written(kv, output.kv, index, valid)

  def of_size(size: int):
    def of_part(kv: KVCache):
      index, valid = chosen(wanted, size)
      place = jnp.cumsum(wanted, axis=1, dtype=jnp.int32) - 1
      rows = jnp.clip(jnp.take_along_axis(place, source, axis=1), 0, size - 1)
      frontier = part_of_canvas(now.token, index, valid)
      output = network.model.forward(params, frontier, without(kv, wanted, job.end), rows)
      return network.logits(output), written(kv, output.kv, index, valid)

    return of_part

  def some(kv: KVCache):
    most = jnp.max(jnp.sum(wanted, axis=1))
    branch = jnp.sum(most > jnp.asarray(sizes))
    branches = [of_size(size) for size in sizes]
    return jax.lax.switch(jnp.minimum(branch, len(sizes) - 1), branches, kv)

  # A row's logits come from its own kind of pass, whatever the others of the batch do.
  stale, kv = jax.lax.cond(jnp.any(part), some, lambda kv: (none, kv), kv)
  new, kv = jax.lax.cond(jnp.any(whole), of_whole, lambda kv: (none, kv), kv)
  return jnp.where(whole[:, None, None], new, stale), kv


def check_bidirectional(network: MaskedNetwork) -> None:
  """Raises ValueError for networks that have an exact cache, or another use of masks."""
  if network.model.config.predicts == "any_subset":
    raise ValueError("an any-subset model has an exact cache: use AnyOrder")
  if network.block_length:
    raise ValueError("a block-causal model has an exact cache: use ExactBlocks")


def check_count(value: object, name: str, minimum: int) -> None:
  """Raises ValueError unless a setting is an integer of at least `minimum`."""
  if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
    raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")


def check_share(value: object, name: str) -> None:
  """Raises ValueError unless a setting is a number in (0, 1]."""
  number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not number or not 0 < value <= 1:
    raise ValueError(f"{name} must be above 0 and at most 1, got {value!r}")
