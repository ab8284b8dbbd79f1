"""Orders of a canvas: the rank of every entry. Context has rank 0, targets have 1, 2, ..."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mtjax.anysubset.canvas import Canvas
from mtjax.sampling.logits import Seeds, row_keys
from mtjax.types import Exactness

# Folded into a row's key: its order is independent of its tokens, which have that key too.
_ORDER = 0x0DE5


def lattice(canvas: Canvas) -> Int[Array, "B L"]:
  """Returns the one order of a subset: targets from left to right (2504.20456, sec. 4).

  Of the L! orders of a text, only those in which every subset's order is ascending are used: they
  form a lattice of 2^L subsets, and every conditional of it is learned from exactly one side.
  Without context it is the order of an autoregressive model.
  """
  return jnp.cumsum(canvas.is_target, axis=1, dtype=jnp.int32) * canvas.is_target


def random_order(canvas: Canvas, key: Seeds) -> Int[Array, "B L"]:
  """Samples an order of the targets of every row, uniformly and independently per row.

  `key`: a seed or key, folded with the row index, or a [B] array of keys. A row's order depends on
  its own key and entries, and not on padding after them.
  A lattice model was not trained for it: its conditionals in this order need not agree with those
  of the lattice, so the joint distribution is another one (a consistent model has only one).
  """
  batch, size = canvas.is_target.shape
  lot = jnp.where(canvas.is_target, _lots(jax.random.uniform, row_keys(key, batch), size), 2.0)
  return (jnp.argsort(jnp.argsort(lot, axis=1), axis=1).astype(jnp.int32) + 1) * canvas.is_target


def right_to_left(canvas: Canvas) -> Int[Array, "B L"]:
  """Returns the lattice's order reversed: targets from right to left."""
  return (jnp.sum(canvas.is_target, axis=1, keepdims=True) + 1 - lattice(canvas)) * canvas.is_target


def eso_order(canvas: Canvas, key: Seeds, share: float = 0.5) -> Int[Array, "B L"]:
  """Samples an order that begins at random places and ends from left to right (Eso-LM 2506.01928).

  Each target belongs to the first part with probability `share` (alpha_0 of the paper), which is
  in uniformly random order; the others follow in ascending order. `key`: as in `random_order`.
  Raises ValueError for a share out of 0 to 1.
  """
  if not 0 <= share <= 1:
    raise ValueError(f"share must be within 0 to 1, got {share}")
  return eso_ranks(canvas, row_keys(key, canvas.is_target.shape[0]), share)


def eso_times(canvas: Canvas, keys: Key[Array, " B"]) -> Float[Array, "B L"]:
  """Returns a time in [0, 1) per entry, from its row's key and its place: diffusion's, if early."""
  return _lots(jax.random.uniform, keys, canvas.is_target.shape[1])


def eso_ranks(canvas: Canvas, keys: Key[Array, " B"], share: float) -> Int[Array, "B L"]:
  """Returns the ranks of `eso_order`: targets with times below `share` first, by their times."""
  time = eso_times(canvas, keys)
  late = jnp.where(time < share, time, 1.0 + jnp.arange(time.shape[1]))
  return ranks_of_times(-late, canvas.is_target)


def staggered_order(canvas: Canvas, key: Seeds, set_size: int = 8) -> Int[Array, "B L"]:
  """Samples an order that goes from left to right and mixes neighbours (Set Diffusion 2607.01775).

  Target l of L (from 0) has the time T_l = (1 - b) (1 - l / (L - 1)) + b (1 - exp(-E_l / k)), with
  E_l ~ Exp(1), and later times come first. For sets of d = `set_size` targets, S = 2 d is the
  largest set, b = S / (L + S - 1), A = d / (2 L) and k = A / (b - A): targets change places with
  about S neighbours. A set_size of 1 is the lattice's order; one above L / 2 counts as L / 2, where
  targets far apart change places too.

  `key`: a seed or key, folded with the row index, or a [B] array of keys. A row's order depends on
  its own key and targets. Raises ValueError for a set_size below 1.
  """
  if set_size < 1:
    raise ValueError(f"set_size must be at least 1, got {set_size}")
  if set_size == 1:
    return lattice(canvas)
  batch, size = canvas.is_target.shape

  time = staggered_times(
    _lots(jax.random.exponential, row_keys(key, batch), size),
    lattice(canvas) - 1,
    jnp.sum(canvas.is_target, axis=1, keepdims=True),
    set_size,
  )
  return ranks_of_times(time, canvas.is_target)


def staggered_times(
  lot: Float[Array, "B L"], number: Int[Array, "B L"], count: Int[Array, "B #L"], set_size: int
) -> Float[Array, "B L"]:
  """Returns the times of `staggered_order` for lots E: target `number` of `count`, from 0."""
  size = jnp.minimum(set_size, jnp.maximum(count / 2, 1))
  spread = 2 * size / (count + 2 * size - 1)
  area = size / (2 * jnp.maximum(count, 1))
  power = area / jnp.maximum(spread - area, 1e-6)
  begin = (1 - spread) * (1 - number / jnp.maximum(count - 1, 1))
  return begin + spread * -jnp.expm1(-lot / power)


def ranks_of_times(time: Float[Array, "B L"], is_target: Bool[Array, "B L"]) -> Int[Array, "B L"]:
  """Returns ranks of targets by falling time, those of equal times from left to right."""
  late = jnp.where(is_target, -time, jnp.inf)
  place = jnp.argsort(jnp.argsort(late, axis=1, stable=True), axis=1, stable=True)
  return (place.astype(jnp.int32) + 1) * is_target


def _lots(
  distribution: Callable[..., Array], keys: Key[Array, " B"], size: int
) -> Float[Array, "B L"]:
  """Samples one number per entry, from its row's key and its place."""

  def of_row(key):
    own = jax.random.fold_in(key, _ORDER)
    return jax.vmap(lambda i: distribution(jax.random.fold_in(own, i)))(jnp.arange(size))

  return jax.vmap(of_row)(keys)


def order_of_passes(canvas: Canvas, decided_at: Int[np.ndarray, "B L"]) -> Int[Array, "B L"]:
  """Returns ranks by the pass that decided an entry, and from left to right within a pass.

  This is the order in which `Confidence` filled. A pass that decides several entries samples each
  without the others, so entries were sampled from the density under this order only if every pass
  decided one. Raises ValueError for targets that no pass has decided.
  """
  is_target, decided_at = np.asarray(canvas.is_target), np.asarray(decided_at)
  if (decided_at[is_target] < 1).any():
    raise ValueError("some target entries were decided by no pass: fill the canvas first")
  late = np.where(is_target, decided_at, np.iinfo(np.int32).max)
  place = np.argsort(np.argsort(late, axis=1, kind="stable"), axis=1, kind="stable")
  return jnp.asarray((place + 1) * is_target, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Order:
  """An order that is fixed before anything is sampled, and how exact filling in it is.

  Fixed orders are lossless: the text has exactly the model's joint distribution in that order. The
  label does not say that the model was trained for the order. An order that depends on the model's
  predictions is a method of its own (`mtjax.anysubset.Confidence`), and changes the distribution.
  """

  ranks: Callable[[Canvas, Seeds], Int[Array, "B L"]]
  exactness: Exactness = Exactness.LOSSLESS


ORDERS = {
  "lattice": Order(lambda canvas, key: lattice(canvas)),
  "random": Order(random_order),
  "staggered": Order(staggered_order),
  "eso": Order(eso_order),
  "right_to_left": Order(lambda canvas, key: right_to_left(canvas)),
}


def get_order(name: str, canvas: Canvas, key: Seeds) -> Int[Array, "B L"]:
  """Returns the ranks of one of ORDERS. Raises ValueError for another name."""
  if name not in ORDERS:
    raise ValueError(f"order {name!r} is not one of {', '.join(ORDERS)}")
  return ORDERS[name].ranks(canvas, key)


def targets_in_order(
  canvas: Canvas, rank: Int[Array | np.ndarray, "B L"]
) -> tuple[Int[np.ndarray, "B A"], Int[np.ndarray, " B"]]:
  """Returns canvas indices of the targets, first to last (-1 past a row's last), and their number.

  Raises ValueError for ranks that are not 1, 2, ... over the targets of a row and 0 over its
  context: a context entry that came later would be hidden from queries before it.
  """
  is_target, rank = np.asarray(canvas.is_target), np.asarray(rank)
  if rank.shape != is_target.shape:
    raise ValueError(
      f"ranks {rank.shape} and the canvas's entries {is_target.shape} must have one shape"
    )
  total, size = is_target.sum(axis=1), is_target.shape[1]
  order = np.argsort(np.where(is_target, rank, size + 1), axis=1, kind="stable")
  place = np.arange(size)
  real = place < total[:, None]
  if (np.where(real, np.take_along_axis(rank, order, axis=1) - 1, place) != place).any():
    raise ValueError("rank is no order: the target entries of a row must have ranks 1, 2, ...")
  if rank[np.asarray(canvas.is_context)].any():
    raise ValueError("rank is no order: context entries must have rank 0")
  return np.where(real, order, -1)[:, : max(int(total.max()), 1)], total
