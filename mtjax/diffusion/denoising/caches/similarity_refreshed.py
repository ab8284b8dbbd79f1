"""dLLM-Cache of bidirectional models: entries whose values changed are computed, layer by layer."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.diffusion.denoising.caches import canvas_keys
from mtjax.diffusion.denoising.caches.protocol import Pass
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.state import Job
from mtjax.models import Params
from mtjax.models.access import LayerAccess
from mtjax.types import Exactness, LayerKV


class SimilarityState(struct.PyTreeNode):
  """What layers have computed for canvases: keys for all entries, changes for the response."""

  kv: KVCache
  change: Float[Array, "N B G D"]  # output minus input, of each layer and entry of the response
  passes: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class SimilarityRefreshed:
  """Computes anew the share of the response whose values changed most (dLLM-Cache 2506.06295).

  Every `prompt_every` passes all is computed (Kp), every `response_every` passes the response over
  the kept keys of the prompt (Kg). In all other passes a layer computes the value vectors of the
  response, and of it the `share` (rho) of entries whose value is least similar, by cosine, to the
  one it had; the other entries get what the layer added to them when it last computed them. New
  values replace the old ones at all entries, keys only at those computed (section 3.3 and the
  published code, cache_hook_LLaDA.py).

  It departs from that code in this: prompt_every is a multiple of response_every; the share is
  rounded up, and is one of a static size that holds the response, here rounded up to a size of
  `rounds.size_buckets`; queries and keys are projected along with the values, because the
  projection is fused, which costs time and changes nothing; the two branches of a layer are kept as
  their sum; and a cosine is a multiple of 2^-16, so that of entries which are equally similar those
  at the front are computed, whatever rounding says.
  """

  prompt_every: int = 48
  response_every: int = 8
  share: float = 0.25
  exactness = Exactness.APPROXIMATE
  reason = "entries whose values changed little keep what an earlier pass computed for them"
  needs_final = False
  reads_layers = True

  def __post_init__(self):
    for name in ("prompt_every", "response_every"):
      canvas_keys.check_count(getattr(self, name), name, 1)
    canvas_keys.check_share(self.share, "share")
    if self.prompt_every % self.response_every:
      raise ValueError(
        f"prompt_every must be a multiple of response_every, got {self.prompt_every} and "
        f"{self.response_every}"
      )

  def check(self, network: MaskedNetwork) -> None:
    canvas_keys.check_bidirectional(network)
    LayerAccess.of(network.model.config)

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> SimilarityState:
    c, size = network.model.config, self._size(network, job)
    shape = (len(c.layers), job.prompt.shape[0], size, c.dim)
    change = jnp.zeros(shape, jnp.dtype(c.dtype))
    return SimilarityState(canvas_keys.allocate(network, job), change, jnp.zeros((), jnp.int32))

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: SimilarityState, now: Pass
  ) -> tuple[Float[Array, "B W V"], SimilarityState]:
    run = _Run(network, params, job, now, self._size(network, job), self.share)
    begins = cache.passes % self.prompt_every == 0
    kind = jnp.where(begins, 0, jnp.where(cache.passes % self.response_every == 0, 1, 2))
    logits, kv, change = jax.lax.switch(kind, [run.whole, run.response, run.changed], cache)
    return logits, SimilarityState(kv, change, cache.passes + 1)

  def _size(self, network: MaskedNetwork, job: Job) -> int:
    # With shifted logits the last entry of the prompt predicts, and counts as of the response.
    return min(job.response_size + network.shifted, job.size)


class _Run:
  """The three kinds of pass of one program, from a state to logits, keys and changes."""

  def __init__(self, network, params, job: Job, now: Pass, size: int, share: float):
    self.network, self.params, self.job, self.now = network, params, job, now
    self.access = LayerAccess.of(network.model.config)
    self.count = max(1, -int(-share * size // 1))
    self.begin = network.sources(job.start[:, None])
    index = self.begin + jnp.arange(size)
    self.valid = index < job.end[:, None]
    self.index = jnp.minimum(index, job.size - 1)
    self.frontier = canvas_keys.part_of_canvas(now.token, self.index, self.valid)
    # Where in the response the entries are that predict the window.
    source = network.sources(now.window.index)
    self.source = jnp.clip(source - self.begin, 0, size - 1)

  def whole(self, cache: SimilarityState):
    canvas = self.network.canvas(self.now.token, self.job.end)
    every = jnp.broadcast_to(jnp.arange(self.job.size), canvas.token.shape)
    x, kv, change = self.access.embed(self.params, canvas), [], []
    for layer, _ in enumerate(cache.kv.layers):
      y, fresh = self._layer(layer, canvas, None, x)
      kv.append(fresh)
      change.append(_take(y - x, self.index))
      x = y
    kept = canvas_keys.written(cache.kv, kv, every, every < self.job.end[:, None])
    return self._logits(_take(x, self.index)), kept, jnp.stack(change)

  def response(self, cache: SimilarityState):
    x, kv, change = self.access.embed(self.params, self.frontier), [], []
    for layer, old in enumerate(cache.kv.layers):
      prompt = KVCache((old,), _slots(cache.kv), self.begin[:, 0])
      y, fresh = self._layer(layer, self.frontier, prompt, x)
      kv.append(fresh)
      change.append(y - x)
      x = y
    kept = canvas_keys.written(cache.kv, kv, self.index, self.valid)
    return self._logits(x), kept, jnp.stack(change)

  def changed(self, cache: SimilarityState):
    x, kv, change = self.access.embed(self.params, self.frontier), [], []
    for layer, old in enumerate(cache.kv.layers):
      value = self.access.project(self.params, x, self.index, layer).v.swapaxes(1, 2)
      before = jnp.take_along_axis(old.v, self.index[:, None, :, None], axis=2)
      similar = jnp.where(self.valid, _cosine(value, before), jnp.inf)
      place = jax.lax.top_k(-similar, self.count)[1]
      index, valid = (jnp.take_along_axis(z, place, axis=1) for z in (self.index, self.valid))
      old = LayerKV(old.k, canvas_keys.scattered(old.v, value, self.index, self.valid))
      one = KVCache((old,), _slots(cache.kv), self.begin[:, 0])
      wanted = jnp.zeros(self.now.token.shape, bool)
      rows = jnp.arange(wanted.shape[0])[:, None]
      wanted = wanted.at[rows, jnp.where(valid, index, self.job.size)].set(True, mode="drop")
      part = canvas_keys.part_of_canvas(self.now.token, index, valid)
      inner = _take(x, place)
      rest = canvas_keys.without(one, wanted, self.job.end)
      y, fresh = self._layer(layer, part, rest, inner)
      kv.append(canvas_keys.written(one, [fresh], index, valid).layers[0])
      change.append(cache.change[layer].at[rows, place].set(y - inner))
      x = x + change[-1]
    return self._logits(x), cache.kv.replace(layers=tuple(kv)), jnp.stack(change)

  def _layer(self, layer: int, frontier, cache, x):
    """Returns the outputs of one layer for inputs x, and its keys and values."""
    none = jnp.zeros((frontier.batch, 0), jnp.int32)
    output, y = self.network.model.segment(
      self.params,
      frontier,
      cache,
      none,
      first=layer,
      last=layer + 1,
      hidden=x if layer else None,
    )
    return y, output.kv[0]

  def _logits(self, x):
    logits = self.access.logits(self.params, _take(x, self.source))
    return self.network.allowed(logits)


def _slots(kv: KVCache) -> Int[Array, "B S"]:
  return jnp.broadcast_to(jnp.arange(kv.capacity, dtype=jnp.int32), kv.position.shape)


def _take(x: Float[Array, "B S D"], index: Int[Array, "B T"]) -> Float[Array, "B T D"]:
  return jnp.take_along_axis(x, index[:, :, None], axis=1)


def _cosine(a: Float[Array, "B G T D"], b: Float[Array, "B G T D"]) -> Float[Array, "B T"]:
  """Returns the cosine of each entry's vectors, those of its heads side by side.

  It is a multiple of 2^-16: which of several unchanged entries is computed again then depends on
  their places, and seldom on rounding, which the devices of a mesh do differently.
  """
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)

  def dot(x, y):
    return jnp.sum(x * y, axis=(1, 3))

  cosine = dot(a, b) / jnp.sqrt(jnp.maximum(dot(a, a) * dot(b, b), 1e-16))
  return jnp.round(cosine * 2**16) / 2**16
