"""The rows of a batch that a process feeds: those that its own devices hold."""

import dataclasses

import jax
import numpy as np
from jax.sharding import NamedSharding


@dataclasses.dataclass(frozen=True)
class HostRows:
  """The rows of each batch that the devices of this process hold, by their numbers in the batch."""

  rows: tuple[int, ...]
  batch: int  # number of rows of all processes
  sharding: NamedSharding  # of rows over devices

  @classmethod
  def of(cls, sharding: NamedSharding, batch: int) -> "HostRows":
    """Returns the rows of this process. Raises ValueError for rows that the sharding cannot split.

    Processes whose devices hold the same rows, as those along the model axis, each have them.
    """
    try:
      places = sharding.addressable_devices_indices_map((batch,))
    except ValueError as error:
      raise ValueError(f"{batch} rows do not divide over the devices: {error}") from None
    numbers = range(batch)
    rows = {row for part in places.values() if part for row in numbers[part[0]]}
    return cls(tuple(sorted(rows)), batch, sharding)

  def place(self, arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns global arrays [batch, ...] of this process's rows [len(rows), ...], in order."""
    where = {row: at for at, row in enumerate(self.rows)}

    def put(leaf: np.ndarray) -> jax.Array:
      def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        first, *others = index
        return leaf[[where[row] for row in range(self.batch)[first]]][(slice(None), *others)]

      return jax.make_array_from_callback((self.batch, *leaf.shape[1:]), self.sharding, part)

    return {name: put(np.asarray(leaf)) for name, leaf in arrays.items()}
