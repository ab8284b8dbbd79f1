"""Other attention on a device: that of jax.nn with an explicit mask, and FlexAttention.

Peers get their inputs as they would keep them: fresh keys already after those of the cache, in
their layout, and the mask made once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from kernels_pallas.frontier_attention import frontier_attention, visible
from kernels_pallas.frontier_attention.dispatch import Implementation
from mtjax.bench.attention import flex as flex_peer
from mtjax.bench.attention.clock import seconds_per_call
from mtjax.bench.attention.correctness import why_not
from mtjax.bench.attention.kernels import AttentionShape
from mtjax.bench.attention.limits import DeviceLimits, need
from mtjax.bench.attention.sweep import SweepPoint, cached_bytes, sets_of, short

FLEX = "FlexAttention"


class AttentionSystem(NamedTuple):
  """A system: `prepare` converts a layer's arrays and the shared inputs; `attend` takes q and both.

  The converted arrays have "k" and "v", by which gradients are taken.
  """

  prepare: Callable[[dict, dict], tuple[dict, dict]]
  attend: Callable[[Array, dict, dict], Array]


def peers() -> dict[str, AttentionSystem]:
  return {
    f"jax.nn {name}": AttentionSystem(with_mask, functools.partial(_jax_nn, implementation=name))
    for name in ("xla", "cudnn")
  }


def ours(name: Implementation) -> AttentionSystem:
  def attend(q, arrays, shared):
    return frontier_attention(q, **arrays, **shared, implementation=name)[0]

  return AttentionSystem(lambda arrays, shared: (arrays, shared), attend)


def with_mask(arrays: dict, shared: dict) -> tuple[dict, dict]:
  """Returns keys and values [B, S + T, G, D] and one mask [B, 1, T, S + T]."""
  seen = mask(arrays, shared)
  return behind_cache(arrays), dict(mask=seen[:, None])


def mask(arrays: dict, shared: dict) -> Bool[Array, "B T J"]:
  seen = visible(shared["stamp"], shared["lo"], shared["hi"])
  if arrays["cache_k"] is None:
    return seen
  filled = jnp.arange(arrays["cache_k"].shape[2]) < shared["lengths"][:, None]
  filled = jnp.broadcast_to(filled[:, None], (*seen.shape[:2], filled.shape[1]))
  return jnp.concatenate([filled, seen], axis=2)


@jax.jit
def behind_cache(arrays: dict) -> dict[str, Float[Array, "B J G D"]]:
  result = {}
  for name in "kv":
    x = arrays[name]
    if arrays[f"cache_{name}"] is not None:
      x = jnp.concatenate([arrays[f"cache_{name}"], x], axis=2)
    result[name] = x.swapaxes(1, 2)
  return result


def _jax_nn(q, arrays, shared, *, implementation):
  return jax.nn.dot_product_attention(
    q, arrays["k"], arrays["v"], mask=shared["mask"], implementation=implementation
  )


def compare(
  shape: AttentionShape,
  limits: DeviceLimits,
  names: Sequence[Implementation],
  *,
  rounds: int = 5,
  progress: Callable[[str], None] = lambda text: None,
) -> list[SweepPoint]:
  """Times implementations by name, then jax.nn in XLA and cuDNN, then FlexAttention, on one shape.

  A system that does not support the shape gets a point that says why. `SweepPoint.difference` is
  the largest one to the output of `xla`, over entries that see something: the output of other
  entries is defined differently by each system.
  """
  try:
    sets, shared = sets_of(shape, None, cached_bytes(limits.platform))
    q = shared.pop("q")
    right, lse = jax.jit(functools.partial(frontier_attention, implementation="xla"))(
      q, **sets[0], **shared
    )
  except Exception as error:  # noqa: BLE001 - other shapes are run in any case
    return [SweepPoint(shape, "all", None, need(shape), limits, why=short(error))]

  def difference(out):
    some = np.isfinite(np.asarray(lse))[..., None]
    off = np.abs(np.asarray(out, np.float32) - np.asarray(right, np.float32))
    return float(np.where(some, off, 0).max())

  def run(name, system):
    arguments = [system.prepare(arrays, shared) for arrays in sets]
    kept, common = [arrays for arrays, _ in arguments], arguments[0][1]
    out = jax.jit(system.attend)(q, kept[0], common)
    state: Any = q
    call: Callable = system.attend
    if shape.gradient:
      state, call = (q, kept[0]["k"], kept[0]["v"]), _training(system)
    return seconds_per_call(call, state, kept, common, rounds=rounds), difference(out)

  def flex():
    if reason := flex_peer.why_not():
      raise NotImplementedError(reason)
    layers = [dict(q=q, **arrays, **shared) for arrays in sets]
    out, seconds = flex_peer.measured(layers, shape.gradient, rounds)
    return seconds, difference(out)

  def point(name, measure):
    progress(name)
    empty = SweepPoint(shape, name, None, need(shape), limits)
    try:
      seconds, off = measure()
    except Exception as error:  # noqa: BLE001 - peers refuse in many ways, and each one is reported
      return dataclasses.replace(empty, why=short(error))
    return dataclasses.replace(empty, seconds=seconds, difference=off)

  def able(name):
    if reason := why_not(name, dict(q=q, **sets[0], **shared)):
      raise NotImplementedError(reason)
    return run(name, ours(name))

  result = [point(name, functools.partial(able, name)) for name in names]
  for name, system in peers().items():
    result.append(point(name, functools.partial(run, name, system)))
  return [*result, point(FLEX, flex)]


def _training(system):
  def call(state, arrays, shared):
    def of(q, k, v):
      return system.attend(q, arrays | dict(k=k, v=v), shared)

    out, pull = jax.vjp(of, *state)
    # The inputs hardly change, but a compiler cannot know how small gradients are.
    return tuple(x + 1e-9 * g for x, g in zip(state, pull(out), strict=True))

  return call


def shapes(
  decoding: Iterable[tuple[int, int, int]],
  training: Iterable[tuple[str, int]],
  **common: Any,
) -> list[AttentionShape]:
  """Returns shapes from (batch, entries, slots) of decoding and (mask, entries) of training."""
  result = [
    AttentionShape("tree", t, slots, slots, batch, **common) for batch, t, slots in decoding
  ]
  for name, entries in training:
    for gradient in (False, True):
      result.append(AttentionShape(name, entries, batch=1, gradient=gradient, **common))
  return result
