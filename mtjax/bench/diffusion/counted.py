"""A model that counts its passes and entries while it computes, inside compiled programs too."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from mtjax.cache import KVCache
from mtjax.models import Model, Params
from mtjax.types import Frontier, Output


class Tally:
  """Numbers of passes and of entries per row, which a `CountedModel` adds to."""

  def __init__(self):
    self.passes, self._entry_layers = 0, {}

  def add(self, entries: int, first: int, last: int, layers: int) -> None:
    self.passes += first == 0
    self._entry_layers[layers] = self._entry_layers.get(layers, 0) + entries * (last - first)

  @property
  def entries(self) -> float:
    """The number of entries; an entry that some layers computed counts as their share."""
    jax.effects_barrier()
    return sum(count / layers for layers, count in self._entry_layers.items())


@dataclasses.dataclass(frozen=True)
class CountedModel(Model):
  """The same model; whenever a program runs one of its passes, that is added to `tally`.

  Padding counts, because it is computed. Read a tally after `jax.effects_barrier()`.
  """

  tally: Tally = dataclasses.field(default_factory=Tally)

  def segment(
    self,
    params: Params,
    frontier: Frontier,
    cache: KVCache | None = None,
    rows: Int[Array, "B R"] | None = None,
    *,
    first: int,
    last: int,
    hidden: Float[Array, "B T D"] | None = None,
  ) -> tuple[Output, Float[Array, "B F D"]]:
    layers, tally = len(self.config.layers), self.tally

    def add():
      tally.add(frontier.size, first, last, layers)

    jax.debug.callback(add)
    return super().segment(params, frontier, cache, rows, first=first, last=last, hidden=hidden)
