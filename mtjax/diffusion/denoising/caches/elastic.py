"""Elastic-Cache of bidirectional models: deep layers are computed anew when attention drifts."""

import dataclasses
from typing import NamedTuple

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


class ElasticState(struct.PyTreeNode):
  """What each layer has seen and computed for canvases, and whose attention is watched."""

  kv: KVCache
  x: Float[Array, "N B S D"]  # inputs of each layer
  tracked: Int[Array, "N B"]  # position of the token that got most attention in the last pass
  weights: Float[Array, "N B H S"]  # attention of that token to the canvas in that pass


@dataclasses.dataclass(frozen=True)
class Elastic:
  """Computes the block, and all entries of deep layers when attention drifts (2510.14973).

  A pass has the entries of the block and, per layer, the tracked token: of the decided ones that
  which got most attention from the block's masks in the pass before. If the cosine between the
  attention weights of a layer's tracked token in this pass and in that before is below `threshold`
  (gamma), all entries of the layers above are computed anew from the kept inputs of the first of
  them (section 3.3, algorithm 1). Others use keys as they were. The first pass of a block computes
  all.

  It departs from the paper in this: the block takes the place of the sliding window, because a pass
  decides in its block only; the weights of a token that becomes tracked are computed from its kept
  input, because it may not be among the entries of that pass; weights are those of full attention
  in layers with a window, too; with shifted logits the block's entries begin one before it. It
  keeps the inputs of all layers, [layers, batch, canvas, width].
  """

  threshold: float = 0.9
  exactness = Exactness.APPROXIMATE
  reason = "keys of other entries are old until the attention of tracked tokens drifts"
  needs_final = False
  reads_layers = True

  def __post_init__(self):
    canvas_keys.check_share(self.threshold, "threshold")

  def check(self, network: MaskedNetwork) -> None:
    canvas_keys.check_bidirectional(network)
    LayerAccess.of(network.model.config)

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> ElasticState:
    c, (batch, size) = network.model.config, job.prompt.shape
    count = len(c.layers)
    return ElasticState(
      kv=canvas_keys.allocate(network, job),
      x=jnp.zeros((count, batch, size, c.dim), jnp.dtype(c.dtype)),
      tracked=jnp.zeros((count, batch), jnp.int32),
      weights=jnp.zeros((count, batch, c.heads, size), jnp.float32),
    )

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: ElasticState, now: Pass
  ) -> tuple[Float[Array, "B W V"], ElasticState]:
    run = _Layers(network, params, job, now)
    whole, part = now.active & now.fresh, now.active & ~now.fresh
    width = now.window.index.shape[1]
    none = jnp.zeros((*now.window.index.shape, network.model.config.vocab_size), jnp.float32)

    def some(cache: ElasticState):
      return _part(run, cache, part, width, self.threshold)

    stale, cache = jax.lax.cond(jnp.any(part), some, lambda cache: (none, cache), cache)
    new, cache = jax.lax.cond(
      jnp.any(whole), lambda cache: _whole(run, cache, whole), lambda cache: (none, cache), cache
    )
    return jnp.where(whole[:, None, None], new, stale), cache


class _Layers:
  """One program's layers, and the attention weights between them."""

  def __init__(self, network: MaskedNetwork, params, job: Job, now: Pass):
    self.network, self.params, self.job, self.now = network, params, job, now
    self.access = LayerAccess.of(network.model.config)
    self.canvas = network.canvas(now.token, job.end)
    place = jnp.arange(job.size)
    self.inside = place < job.end[:, None]
    masked = self.inside & (place >= job.start[:, None]) & (now.token == network.mask_id)
    self.decided = self.inside & ~masked
    self.source = network.sources(now.window.index)
    self.asking = now.window.read(masked) & now.window.inside

  def run(self, layer: int, frontier, cache, x):
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

  def weights(
    self, layer: int, x: Float[Array, "B S M"], k: Float[Array, "B G C D"], index
  ) -> Float[Array, "B T H S"]:
    """Returns the attention weights of entries `index` over the canvas, from its inputs x."""
    c = self.network.model.config
    q = self.access.project(self.params, _take(x, index), index, layer).q
    q = q.reshape(*q.shape[:2], c.kv_heads, c.group, c.head_dim).astype(jnp.float32)
    scores = jnp.einsum("btghd,bgsd->btghs", q, k[:, :, : self.job.size].astype(jnp.float32))
    scores *= c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    if c.attention_soft_cap is not None:
      scores = c.attention_soft_cap * jnp.tanh(scores / c.attention_soft_cap)
    scores = jnp.where(self.inside[:, None, None, None], scores, -jnp.inf)
    return jax.nn.softmax(scores).reshape(*q.shape[:2], c.heads, self.job.size)

  def watched(self, layer: int, x, k):
    """Returns the position of the token to track from this pass on, and its weights."""
    given = self.weights(layer, x, k, self.source) * self.asking[:, :, None, None]
    got = jnp.where(self.decided, jnp.sum(given, axis=(1, 2)), -jnp.inf)
    tracked = jnp.argmax(got, axis=1).astype(jnp.int32)
    return tracked, self.weights(layer, x, k, tracked[:, None])[:, 0]

  def logits(self, x: Float[Array, "B T D"], rows) -> Float[Array, "B W V"]:
    return self.network.allowed(self.access.logits(self.params, _take(x, rows)))


class _Kept(NamedTuple):
  """One layer's part of a state."""

  kv: LayerKV
  x: Float[Array, "B S D"]
  tracked: Int[Array, " B"]
  weights: Float[Array, "B H S"]


def _state(old: ElasticState, rows, layers: list[_Kept]) -> ElasticState:
  """Returns the new state of `rows`, and the old one of others."""
  kv, *arrays = zip(*layers, strict=True)
  new = ElasticState(old.kv.replace(layers=tuple(kv)), *map(jnp.stack, arrays))

  def keep(a, b):
    return jnp.where(rows.reshape(1, -1, *[1] * (a.ndim - 2)), a, b)

  # Keys were written for these rows alone.
  return new.replace(
    x=keep(new.x, old.x),
    tracked=keep(new.tracked, old.tracked),
    weights=keep(new.weights, old.weights),
  )


def _whole(run: _Layers, cache: ElasticState, rows):
  """Returns logits and state after a pass that computes the whole canvas of `rows`."""
  x, layers = run.access.embed(run.params, run.canvas), []
  for layer, old in enumerate(cache.kv.layers):
    y, fresh = run.run(layer, run.canvas, None, x)
    kv = _written(old, fresh, rows[:, None] & run.inside)
    layers.append(_Kept(kv, x, *run.watched(layer, x, kv.k)))
    x = y
  return run.logits(x, run.source), _state(cache, rows, layers)


def _part(run: _Layers, cache: ElasticState, rows, width: int, threshold: float):
  """Returns logits and state after a pass over the blocks and tracked tokens of `rows`."""
  place = jnp.arange(run.job.size)
  # The block with the entries that predict it, which are not all in it if logits are shifted.
  first = run.source[:, :1]
  last = run.now.window.index[:, :1] + width
  wanted = (place >= first) & (place < last) & run.inside
  wanted |= jnp.any(cache.tracked[:, :, None] == place, axis=0)
  size = width + run.network.shifted + len(cache.kv.layers)
  index, valid = canvas_keys.chosen(wanted, min(size, run.job.size))
  frontier = canvas_keys.part_of_canvas(run.now.token, index, valid)
  # Entries that exist, in rows of this kind; others are not written.
  valid &= rows[:, None]
  drifted, layers = jnp.zeros_like(rows), []
  x, inputs = run.access.embed(run.params, frontier), run.access.embed(run.params, run.canvas)
  for layer, old in enumerate(cache.kv.layers):
    inputs = _placed(inputs, x, index, valid)
    rest = canvas_keys.without(cache.kv.replace(layers=(old,)), wanted, run.job.end)
    y, fresh = run.run(layer, frontier, rest, x)
    kv = LayerKV(
      *(canvas_keys.scattered(o, n, index, valid) for o, n in zip(old, fresh, strict=True))
    )
    above = cache.x[layer + 1] if layer + 1 < len(cache.kv.layers) else jnp.zeros_like(inputs)

    def anew(kv, above, layer=layer, inputs=inputs, drifted=drifted):
      outputs, fresh = run.run(layer, run.canvas, None, inputs)
      kv = _written(kv, fresh, drifted[:, None] & run.inside)
      return kv, jnp.where(drifted[:, None, None], outputs, above)

    if layer:  # nothing has drifted below the first layer
      kv, above = jax.lax.cond(jnp.any(drifted), anew, lambda *same: same, kv, above)
      y = jnp.where(drifted[:, None, None], _take(above, index), y)
    tracked = cache.tracked[layer][:, None]
    now = run.weights(layer, inputs, kv.k, tracked)[:, 0]
    drifted |= rows & (_cosine(now, cache.weights[layer]) < threshold)
    layers.append(_Kept(kv, inputs, *run.watched(layer, inputs, kv.k)))
    x, inputs = y, above
  position = jnp.cumsum(wanted, axis=1, dtype=jnp.int32) - 1
  source = jnp.take_along_axis(position, run.source, axis=1)
  return run.logits(x, jnp.clip(source, 0, x.shape[1] - 1)), _state(cache, rows, layers)


def _written(old: LayerKV, fresh: LayerKV, where) -> LayerKV:
  """Returns old with the canvas's fresh keys and values at the entries that `where` [B, S] says."""
  index = jnp.broadcast_to(jnp.arange(where.shape[1]), where.shape)
  return LayerKV(
    *(canvas_keys.scattered(o, n, index, where) for o, n in zip(old, fresh, strict=True))
  )


def _placed(old, new, index, valid):
  """Returns old [B, S, D] with new [B, T, D] at the valid entries."""
  return canvas_keys.scattered(old[:, None], new[:, None], index, valid)[:, 0]


def _take(x: Float[Array, "B S D"], index: Int[Array, "B T"]) -> Float[Array, "B T D"]:
  return jnp.take_along_axis(x, index[:, :, None], axis=1)


def _cosine(a: Float[Array, "B H S"], b: Float[Array, "B H S"]) -> Float[Array, " B"]:
  def dot(x, y):
    return jnp.sum(x * y, axis=(1, 2))

  return dot(a, b) / jnp.sqrt(jnp.maximum(dot(a, a) * dot(b, b), 1e-30))
