"""Times of noise: one per text or block, spread evenly over all of a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


def spread_times(
  key: PRNGKeyArray, first: Bool[Array, "B L"], *, low: float = 0.0, high: float = 1.0
) -> Float[Array, "B L"]:
  """Returns a time for each run of entries; a run begins where `first` is true.

  The n runs of the whole batch have the times (u + i / n) mod 1, each i once and in random order,
  scaled to [low, high]: antithetic times (MDLM 2406.07524, MD4 2406.04329, app. G). Each run's time
  is uniform. Entries before the first run of their row share its row's first run's lot and mean
  nothing.
  """
  lot_key, shift_key = jax.random.split(key)
  lot = jnp.where(first, jax.random.uniform(lot_key, first.shape), jnp.inf).reshape(-1)
  place = jnp.argsort(jnp.argsort(lot)).reshape(first.shape)
  number = jnp.maximum(jnp.sum(first), 1)
  of_run = (jax.random.uniform(shift_key) + place / number) % 1
  return low + (high - low) * jnp.take_along_axis(of_run, run_start(first), axis=1)


def run_start(first: Bool[Array, "B L"]) -> Int[Array, "B L"]:
  """Returns the index of the first entry of each entry's run."""
  index = jnp.broadcast_to(jnp.arange(first.shape[1]), first.shape)
  return jax.lax.cummax(jnp.where(first, index, 0), axis=1)
