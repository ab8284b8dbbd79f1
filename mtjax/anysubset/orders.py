"""Orders of a canvas: the rank of every entry. Given entries have rank 0, asked ones 1, 2, ..."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mtjax.anysubset.canvas import Canvas
from mtjax.sampling.logits import Seed, row_keys
from mtjax.types import Exactness


def lattice(canvas: Canvas) -> Int[Array, "B L"]:
  """The one order of a subset: asked entries from left to right (2504.20456, sec. 4).

  Of the L! orders of a text only those count in which every subset's own order is ascending: a
  lattice of 2^L subsets, and every conditional of it is learned from exactly one side. Of the
  empty subset it is the order of an autoregressive model.
  """
  return jnp.cumsum(canvas.is_target, axis=1, dtype=jnp.int32) * canvas.is_target


def random_order(canvas: Canvas, key: Seed) -> Int[Array, "B L"]:
  """The asked entries of every row in an order of its own, each equally likely.

  `key`: a seed or key, folded with the row index, or a [B] array of keys. A row's order depends on
  its own key and entries, and not on padding behind them.
  Not what a lattice model was trained for: its conditionals of this order need not agree with
  those of the lattice, and the joint law is another (they would if the model were consistent).
  """
  batch, size = canvas.is_target.shape

  def lots(key):
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(jnp.arange(size))

  lot = jnp.where(canvas.is_target, jax.vmap(lots)(row_keys(key, batch)), 2.0)
  return (jnp.argsort(jnp.argsort(lot, axis=1), axis=1).astype(jnp.int32) + 1) * canvas.is_target


def right_to_left(canvas: Canvas) -> Int[Array, "B L"]:
  """The lattice's order reversed: asked entries from right to left."""
  return (jnp.sum(canvas.is_target, axis=1, keepdims=True) + 1 - lattice(canvas)) * canvas.is_target


def order_of_passes(canvas: Canvas, decided_at: Int[np.ndarray, "B L"]) -> Int[Array, "B L"]:
  """Ranks of a canvas that was filled: by the pass that decided an entry, from left to right in it.

  The order that `Confidence` found. A pass that decides several entries draws each without the
  others, so the density under this order is what they were drawn from where every pass decided one.
  Raises ValueError for asked entries that no pass has decided.
  """
  is_target, decided_at = np.asarray(canvas.is_target), np.asarray(decided_at)
  if (decided_at[is_target] < 1).any():
    raise ValueError("there are asked entries that no pass has decided")
  late = np.where(is_target, decided_at, np.iinfo(np.int32).max)
  place = np.argsort(np.argsort(late, axis=1, kind="stable"), axis=1, kind="stable")
  return jnp.asarray((place + 1) * is_target, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Order:
  """An order that is fixed before anything is drawn, and what it does to the law.

  Fixed orders are lossless: the text has the model's joint law of that order, exactly. That it is
  the order the model was trained for, no label says. An order that is chosen from what the model
  says on the way is a method of its own (`mtjax.anysubset.Confidence`), and changes the law.
  """

  ranks: Callable[[Canvas, Seed], Int[Array, "B L"]]
  exactness: Exactness = Exactness.LOSSLESS


ORDERS = {
  "lattice": Order(lambda canvas, key: lattice(canvas)),
  "random": Order(random_order),
  "right_to_left": Order(lambda canvas, key: right_to_left(canvas)),
}


def get_order(name: str, canvas: Canvas, key: Seed) -> Int[Array, "B L"]:
  """Ranks of one of ORDERS. Raises ValueError for another name."""
  if name not in ORDERS:
    raise ValueError(f"order {name!r} is not one of {', '.join(ORDERS)}")
  return ORDERS[name].ranks(canvas, key)


def targets_in_order(
  canvas: Canvas, rank: Int[Array | np.ndarray, "B L"]
) -> tuple[Int[np.ndarray, "B A"], Int[np.ndarray, " B"]]:
  """Canvas indices of the asked entries, first to last (-1 past a row's last), and their number.

  Raises ValueError for ranks that are not 1, 2, ... over the asked entries of a row, and 0 over the
  given ones: one that came later would be hidden from queries before it.
  """
  is_target, rank = np.asarray(canvas.is_target), np.asarray(rank)
  if rank.shape != is_target.shape:
    raise ValueError(f"ranks {rank.shape} for entries {is_target.shape}")
  total, size = is_target.sum(axis=1), is_target.shape[1]
  order = np.argsort(np.where(is_target, rank, size + 1), axis=1, kind="stable")
  place = np.arange(size)
  real = place < total[:, None]
  if (np.where(real, np.take_along_axis(rank, order, axis=1) - 1, place) != place).any():
    raise ValueError("rank is no order: the asked entries of a row must have ranks 1, 2, ...")
  if rank[np.asarray(canvas.is_context)].any():
    raise ValueError("rank is no order: given entries must have rank 0")
  return np.where(real, order, -1)[:, : max(int(total.max()), 1)], total
