"""Residual vector quantisation: a vector as one code per depth, each for what the others left.

At depth d the code is the nearest one to the vector minus the embeddings of the depths above
(RQ-VAE 2203.01941, sec. 3.1). Shapes: D depths, V codes per depth, C numbers per vector.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from mtjax.display.short import short_repr

_CHUNK = 16_384  # vectors whose distances are in memory at once


class ResidualQuantizer(struct.PyTreeNode):
  """The codebooks of all depths. Code 0 of every depth is the zero vector.

  A depth can therefore leave a vector as it is, and no vector's error grows with depth.
  """

  codebooks: Float[Array, "D V C"]

  __repr__ = short_repr

  @property
  def depth(self) -> int:
    """The number of codes per vector, D."""
    return self.codebooks.shape[0]

  def encode(self, x: Float[Array, "*B C"]) -> Int[Array, "*B D"]:
    """Returns the codes of all depths."""
    return self.encode_rest(x, jnp.zeros(x.shape[:-1], jnp.int32))

  def encode_rest(self, x: Float[Array, "*B C"], known: Int[Array, "*B"]) -> Int[Array, "*B D"]:
    """Returns the codes of the depths >= known of `x`, which is what the known depths left.

    The codes of the known depths are 0 in the result. APPROXIMATE as an inverse of `embed`: a sum
    of embeddings may have a nearer code than the one that it was made of.
    """

    def step(rest, depth_and_codebook):
      depth, codebook = depth_and_codebook
      code = jnp.where(depth >= known, _nearest(rest, codebook), 0)
      return rest - codebook[code] * (depth >= known)[..., None], code

    numbers = jnp.arange(self.depth)
    _, codes = jax.lax.scan(step, x, (numbers, self.codebooks))
    return jnp.moveaxis(codes, 0, -1)

  def embed(
    self,
    tokens: Int[Array, "*B D"],
    first: Int[Array, "*B"] | int = 0,
    end: Int[Array, "*B"] | int | None = None,
  ) -> Float[Array, "*B C"]:
    """Returns the sum of the embeddings of depths first, ..., end - 1 (None: to the last)."""
    depth = jnp.arange(self.depth)
    end = self.depth if end is None else end
    chosen = (depth >= jnp.asarray(first)[..., None]) & (depth < jnp.asarray(end)[..., None])
    vectors = self.codebooks[depth, tokens]
    return jnp.sum(vectors * chosen[..., None], axis=-2)


def _nearest(x: Float[Array, "*B C"], codebook: Float[Array, "V C"]) -> Int[Array, "*B"]:
  """Returns the nearest code, the one of the smallest number among equals."""
  distance = jnp.sum(jnp.square(codebook), axis=-1) - 2 * jnp.einsum("...c,vc->...v", x, codebook)
  return jnp.argmin(distance, axis=-1).astype(jnp.int32)


def fit_quantizer(
  x: Float[np.ndarray, "N C"], *, depth: int, codes: int, iterations: int = 15, seed: int = 0
) -> ResidualQuantizer:
  """Returns codebooks fitted depth by depth to what is left of the vectors, by Lloyd's k-means.

  Centres begin at different vectors, chosen at random. A centre of an empty cell moves to a vector
  with a large error, chosen with a probability that is proportional to its squared error. Code 0
  stays at zero. Raises ValueError for fewer vectors than codes, or for no depth or fewer than two
  codes.
  """
  if depth < 1 or codes < 2:
    raise ValueError(f"a quantizer needs a depth >= 1 and at least 2 codes, got {depth}, {codes}")
  if len(x) < codes:
    raise ValueError(f"{codes} codes need at least as many vectors, got {len(x)}")
  rng = np.random.default_rng(seed)
  rest = np.array(x, np.float32)
  books = []
  for _ in range(depth):
    book = _lloyd(rest, codes, iterations, rng)
    rest = rest - book[_assign(rest, book)[0]]
    books.append(book)
  return ResidualQuantizer(jnp.asarray(np.stack(books)))


def _lloyd(x, codes: int, iterations: int, rng) -> np.ndarray:
  book = np.concatenate([np.zeros_like(x[:1]), x[rng.choice(len(x), codes - 1, replace=False)]])
  for _ in range(iterations):
    cell, error = _assign(x, book)
    count = np.bincount(cell, minlength=codes)
    total = np.zeros_like(book)
    np.add.at(total, cell, x)
    book = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], book)
    empty = np.flatnonzero(count[1:] == 0) + 1
    if len(empty) and error.sum() > 0:
      weight = error.astype(np.float64) + 1e-12
      book[empty] = x[rng.choice(len(x), len(empty), p=weight / weight.sum())]
    book[0] = 0
  return book.astype(np.float32)


def _assign(x, book) -> tuple[np.ndarray, np.ndarray]:
  """Returns the nearest code of each vector and its squared error."""
  norm = np.square(book).sum(-1)
  cells = []
  for first in range(0, len(x), _CHUNK):
    cells.append(np.argmin(norm - 2 * x[first : first + _CHUNK] @ book.T, axis=1))
  cell = np.concatenate(cells)
  return cell, np.square(x - book[cell]).sum(-1)
