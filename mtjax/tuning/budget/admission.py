"""Which drafts of a batch a round verifies: budgets that keep the distribution.

A draft token may be offered to the verifier or left out, by a rule that has not seen this token.
Then the emitted text has the target's distribution: left out means "the target samples here
itself", and whether that happens says nothing about the token. A rule that looks at the token, or
at anything computed from it, keeps tokens that please it and so changes the distribution.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def survival(confidence: Float[Array, "B K"]) -> Float[Array, "B K"]:
  """Returns the probability that each draft and all before it are accepted: cumulative products.

  confidence[b, k]: P(draft k is accepted | those before it were), known before draft k is sampled:
  it may depend on drafts 0 to k - 1 and not on draft k.
  """
  return jnp.cumprod(confidence, axis=-1)


def admit(survival: Float[Array, "B K"], passes_per_second: Float[Array, " M"]) -> Int[Array, " B"]:
  """Returns how many drafts of each row the next pass verifies: DSpark's prefix scheduler.

  2607.05147, algorithm 1. All drafts are taken in the order of their survival a, the likeliest
  first. Of B rows and m admitted drafts the pass has B + m entries and yields B + sum a tokens,
  so Theta(m) = (B + sum a) passes_per_second[B + m]. Drafts are admitted until Theta does not rise
  for the first time.

  This is exact. Whether a draft is admitted depends on drafts that come before it in the order, all
  of which are admitted then, and never on itself: a of the drafts after it, which has seen it, is
  not larger and comes later. Equal a go by position and then by row, not by what was drafted. The
  maximum over all m is larger where speed falls in steps, and is not exact: it lets a later
  draft, and so the token of this one, decide about this one. `admit_budget` with `StaleBudget`
  reaches that maximum exactly.

  passes_per_second[n]: the speed of passes over n entries, all rows together; M >= B + B K + 1.
  Raises ValueError for fewer.
  """
  batch, length = survival.shape
  if passes_per_second.shape[0] < batch + batch * length + 1:
    raise ValueError(
      f"{batch} rows of {length} drafts are up to {batch + batch * length} entries, and speeds are "
      f"known below {passes_per_second.shape[0]}"
    )
  flat = _by_position(survival)
  order = jnp.argsort(-flat, stable=True)
  theta = _yields(flat[order], batch) * passes_per_second[batch : batch + flat.size + 1]
  count = jnp.sum(jnp.cumprod(theta[1:] > theta[:-1]))
  return _lengths(order, count, batch, length)


def admit_budget(survival: Float[Array, "B K"], budget: Int[Array, ""]) -> Int[Array, " B"]:
  """Returns how many drafts of each row a pass verifies that has a place for `budget` drafts.

  The drafts of the largest survival get the places, by the order that `admit` has. It is exact if
  the budget is known before this round's drafts are, as `StaleBudget` makes it.
  """
  batch, length = survival.shape
  order = jnp.argsort(-_by_position(survival), stable=True)
  return _lengths(order, budget, batch, length)


def _by_position(survival: Array) -> Array:
  # Earlier positions first: a stable sort then never puts a draft before one that it follows.
  return jnp.ravel(survival.T)


def _yields(ranked: Array, batch: int) -> Array:
  """Returns the expected tokens of a pass by the number of admitted drafts, from 0 on."""
  return batch + jnp.concatenate([jnp.zeros(1, ranked.dtype), jnp.cumsum(ranked)])


def _lengths(order: Array, count: Array, batch: int, length: int) -> Array:
  place = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
  return jnp.sum(jnp.reshape(place < count, (length, batch)), axis=0)
