"""Vectors to be quantised: principal components of blocks of the data, on one scale."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Latents:
  """An orthonormal map of F numbers of a block to C, divided by one `scale`.

  One scale for all keeps distances: the nearest code is the nearest block among those of the C
  components. Components have a mean square of 1, on average over C.
  """

  mean: Float[np.ndarray, " F"]
  basis: Float[np.ndarray, "F C"]
  scale: float

  def to_latents(self, x: Float[np.ndarray, "*B F"]) -> Float[np.ndarray, "*B C"]:
    """Returns the components of blocks."""
    return ((x - self.mean) @ self.basis / self.scale).astype(np.float32)

  def to_blocks(self, z: Float[np.ndarray, "*B C"]) -> Float[np.ndarray, "*B F"]:
    """Returns the blocks with these components; what is orthogonal to them is the mean."""
    return (z * self.scale) @ self.basis.T + self.mean


def fit_latents(x: Float[np.ndarray, "N F"], width: int) -> Latents:
  """Returns the map to the `width` components of largest variance.

  Raises ValueError for more components than a block has numbers.
  """
  if not 1 <= width <= x.shape[1]:
    raise ValueError(f"width must be 1 to the size of a block, {x.shape[1]}, got {width}")
  mean = x.mean(0, dtype=np.float64)
  values, vectors = np.linalg.eigh(np.cov((x - mean).T).reshape(x.shape[1], x.shape[1]))
  scale = float(np.sqrt(values[::-1][:width].mean()))
  basis = vectors[:, ::-1][:, :width]
  return Latents(mean.astype(np.float32), basis.astype(np.float32), scale)
