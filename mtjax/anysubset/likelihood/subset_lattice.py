"""Marginals of an any-subset model: every subset has one parent in a lattice of subsets.

MAC (2205.13554, sec. 3). Any subset S of N tokens is reached from the empty one by adding a token
at a time, and any order of adding gives a product of conditionals for p(x_S): an any-order model
has N 2^(N-1) of them (edges of the lattice of subsets) to agree. Where the parent of S is S without
its last token in one base order, all that a marginal is ever made of is one edge into each of the
2^N - 1 subsets that are not empty, and p(x_S) is the product over the path up from the empty one.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtjax.anysubset.canvas import Canvas
from mtjax.anysubset.likelihood.density import log_likelihood
from mtjax.anysubset.network import Network
from mtjax.models import Params


def parent(
  subset: Bool[np.ndarray, " L"], base: Int[np.ndarray, " L"] | None = None
) -> tuple[Bool[np.ndarray, " L"], int]:
  """The subset without its last element, and that element, which is learned from it.

  `base[i]`: the place of element i in the base order (None: from left to right). Raises ValueError
  for the empty subset, which has no parent.
  """
  subset = np.asarray(subset, bool)
  if not subset.any():
    raise ValueError("the empty subset has no parent")
  place = np.arange(len(subset)) if base is None else np.asarray(base)
  last = int(np.argmax(np.where(subset, place, -1)))
  rest = subset.copy()
  rest[last] = False
  return rest, last


def decomposition(
  subset: Bool[Array | np.ndarray, "B L"], base: Int[Array | np.ndarray, "B L"] | None = None
) -> Int[Array, "B L"]:
  """Ranks 1, 2, ... of a subset's elements on its path up from the empty one; 0 elsewhere.

  Ascending in the base order: the order in which `log_marginal` multiplies, and that of
  `mtjax.anysubset.orders.lattice` for the asked entries of a canvas, when that is left to right.
  """
  subset = jnp.asarray(subset, bool)
  place = jnp.arange(subset.shape[1]) if base is None else jnp.asarray(base)
  key = jnp.where(subset, place, jnp.iinfo(jnp.int32).max)
  rank = jnp.argsort(jnp.argsort(key, axis=1, stable=True), axis=1, stable=True)
  return (rank.astype(jnp.int32) + 1) * subset


def log_marginal(
  model: Network,
  params: Params,
  canvas: Canvas,
  subset: Bool[np.ndarray, "B L"],
  base: Int[np.ndarray, "B L"] | None = None,
) -> Float[np.ndarray, " B"]:
  """log p(x_S) of entries S of a canvas, from what is given alone, in one forward pass, in nats.

  The path up to S is that of the base order (None: from left to right, as the model was trained).
  The other asked entries are left out, not summed over: nobody sees them. So a conditional of any
  two subsets comes of two passes, log p(x_A, x_B) - log p(x_B), as in MAC; a single pass with B
  given is `log_likelihood`, and agrees with it as far as the model is consistent. Where S is the
  first entries of the order, summing over the others gives it exactly.

  Raises ValueError for entries of S that are not asked, and what `log_likelihood` refuses.
  """
  subset, is_target = np.asarray(subset, bool), np.asarray(canvas.is_target)
  if subset.shape != is_target.shape:
    raise ValueError(f"subset {subset.shape} of entries {is_target.shape}")
  if (subset & ~is_target).any():
    raise ValueError("a marginal is of asked entries: some of the subset are given, or padding")
  alone = canvas.replace(is_target=jnp.asarray(subset))
  rank = decomposition(alone.is_target, None if base is None else jnp.asarray(base))
  return log_likelihood(model, params, alone, rank).sum(axis=1)
