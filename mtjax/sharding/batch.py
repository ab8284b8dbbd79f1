"""Rows of a batch over the data axis."""

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from mtjax.sharding.mesh import DATA, fitting


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of rows of a batch over the data axis, the same on every model shard."""
  return NamedSharding(mesh, P(DATA))


def padded_rows(rows: int, mesh: Mesh | AbstractMesh | None) -> int:
  """Returns the number of rows, at least `rows`, that the data axis divides; None: `rows`."""
  return rows if mesh is None else -(-rows // mesh.shape[DATA]) * mesh.shape[DATA]


def pad_rows(batch: PyTree, rows: int) -> PyTree:
  """Returns arrays [B, ...] as [rows, ...]: the last row is repeated at the end."""

  def pad(leaf):
    more = rows - leaf.shape[0]
    return leaf if more == 0 else jnp.concatenate([leaf, *[leaf[-1:]] * more])

  return jax.tree.map(pad, batch)


def row_shardings(tree: PyTree, mesh: Mesh | AbstractMesh, rows: int) -> PyTree:
  """Returns NamedShardings of any arrays: those of `rows` rows over the data axis, others whole.

  An array without rows whose first dimension happens to have the same size is split too, which
  changes no result.
  """

  def sharding(leaf):
    of_rows = leaf.ndim > 0 and leaf.shape[0] == rows
    return NamedSharding(mesh, fitting(P(DATA) if of_rows else P(), leaf.shape, mesh))

  return jax.tree.map(sharding, tree)
