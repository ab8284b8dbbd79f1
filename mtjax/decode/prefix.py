"""A text that goes on: tokens whose keys and values are known are not computed again."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtjax.cache import KVCache
from mtjax.display.short import counted
from mtjax.models import Model
from mtjax.models.stacking import Stacks, head_parts
from mtjax.rounds.size_buckets import bucket
from mtjax.types import LayerKV

# Smallest size of a text that goes on: it will grow, and each new size compiles again. Empty places
# cost next to nothing, because only new tokens are computed.
MIN_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Prefix:
  """Tokens of one text and the cache with their keys and values, from `stream` for `stream`.

  The next prompt may be any text: what it has in common with `tokens` from the beginning is read
  from the cache, and the rest is computed. Keys and values are those of the model and parameters
  that computed them, and it is for the caller to bring no others.
  """

  tokens: tuple[int, ...] = ()
  cache: KVCache | None = None  # of one row; None: nothing is known
  head_parts: int = 1  # of the mesh that computed it: the order of stacked layers' heads

  def __repr__(self) -> str:
    return f"Prefix({counted(len(self.tokens), 'token')})"

  def common(self, prompt: Sequence[int]) -> int:
    """Returns how many tokens of the prompt are known; its last one never counts.

    A forward pass over the last token gives the logits of the next one.
    """
    pairs = zip(self.tokens, prompt[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

  def cache_for(self, model: Model, prompt: Sequence[int], capacity: int) -> KVCache:
    """Returns a cache of `capacity` slots that holds the known tokens of the prompt.

    It holds none if layers are stacked, and the mesh of `jax.set_mesh` splits heads into other
    parts than that of the text before: keys are then in another order. Raises ValueError if the
    keys and values are those of a model of other sizes.
    """
    if self.cache is None or self.head_parts != parts_of(model):
      return _committed(model.allocate(1, capacity))
    known = jnp.full((1,), self.common(prompt), jnp.int32)
    shape = jax.eval_shape(lambda: model.allocate(1, capacity))
    fitted = KVCache(
      layers=tuple(
        LayerKV(*(_resized(x, shape.capacity, 2) for x in kv)) for kv in self.cache.layers
      ),
      position=_resized(self.cache.position, shape.capacity, 1),
      length=known,
    )
    if jax.tree.map(_kind, fitted) != jax.tree.map(_kind, shape):
      raise ValueError("the prefix holds keys and values of a model of other sizes")
    return _committed(fitted)


def parts_of(model: Model) -> int:
  """Returns `Prefix.head_parts` of what the model computes here; 1 if no layers are stacked."""
  config = model.config
  return head_parts(config.kv_heads) if Stacks.of(config).count else 1


def text_size(length: int, maximum: int) -> int:
  """Returns the size that a text of `length` tokens that goes on is padded to."""
  return bucket(max(length, min(MIN_SIZE, maximum)), maximum=maximum)


def _committed(cache: KVCache) -> KVCache:
  """Returns the cache as a program returns it whose parameters have a fixed place.

  Programs are compiled for inputs that have one or for others. On several devices XLA chooses.
  """
  if jax.device_count() > 1:
    return cache
  return jax.device_put(cache, jax.tree.map(lambda x: x.sharding, cache))


def _kind(array: jax.Array | jax.ShapeDtypeStruct) -> str:
  return f"{array.shape} {array.dtype}"


def _resized(array: jax.Array, size: int, axis: int) -> jax.Array:
  """Returns the array with fewer or more places along `axis`, at its end."""
  more = size - array.shape[axis]
  if more <= 0:
    return jax.lax.slice_in_dim(array, 0, size, axis=axis)
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, more)
  return jnp.pad(array, widths)
