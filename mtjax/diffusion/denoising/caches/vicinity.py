"""dInfer's cache of bidirectional models: entries near the block are computed in every pass."""

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches import canvas_keys
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.types import Exactness


class VicinityState(struct.PyTreeNode):
  """Keys of canvases, and how old those of far entries are."""

  kv: KVCache
  passes: Int[Array, ""]  # since the beginning
  age: Int[Array, " B"]  # passes since one that computed the whole canvas


@dataclasses.dataclass(frozen=True)
class Vicinity:
  """Computes the block and its vicinity, over the keys of far entries as they were (dInfer).

  A pass has the `before` entries before the block, the block, and the `after` entries behind it
  (2510.08666, "vicinity KV-cache refresh"; dInfer's prefix_look and after_look). Passes that
  compute the whole canvas, and all keys with it, are the first `warm_up` + 1, the first one of each
  block and, if `every` is not None, each that comes `every` passes after such a one. With before
  and after 0 it is Fast-dLLM's dual cache (`BlockStale(suffix=True)`).

  dInfer decodes once more from the vicinity straight after a pass over the whole canvas; here a
  pass decides once.
  """

  before: int = 16
  after: int = 16
  warm_up: int = 4
  every: int | None = None
  exactness = Exactness.APPROXIMATE
  reason = "keys of entries far from the block are those of an earlier pass"
  needs_final = False
  reads_layers = False

  def __post_init__(self):
    for name in ("before", "after", "warm_up"):
      canvas_keys.check_count(getattr(self, name), name, 0)
    if self.every is not None:
      canvas_keys.check_count(self.every, "every", 1)

  def check(self, network: MaskedNetwork) -> None:
    canvas_keys.check_bidirectional(network)
    if network.shifted and not self.before:
      raise ValueError(
        "in a model with shifted logits the entry before the block predicts its first position: "
        "before must be at least 1"
      )

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> VicinityState:
    batch = job.prompt.shape[0]
    zero = jnp.zeros((), jnp.int32)
    return VicinityState(canvas_keys.allocate(network, job), zero, jnp.zeros(batch, jnp.int32))

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: VicinityState, now: Pass
  ) -> tuple[Float[Array, "B W V"], VicinityState]:
    begin, width = now.window.index[:, :1], now.window.index.shape[1]
    place = jnp.arange(job.size)
    near = (place >= begin - self.before) & (place < begin + width + self.after)
    whole = now.fresh | (cache.passes <= self.warm_up)
    if self.every is not None:
      whole |= cache.age >= self.every
    logits, kv = canvas_keys.compute(
      network,
      params,
      job,
      cache.kv,
      now,
      whole=whole,
      wanted=near & (place < job.end[:, None]),
      sizes=(min(self.before + width + self.after, job.size),),
    )
    age = jnp.where(whole, 1, cache.age + 1)
    return logits, VicinityState(kv, cache.passes + 1, age)
