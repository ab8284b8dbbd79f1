"""What a score is."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Scoring(NamedTuple):
  """Static: a score is q . k * scale, and with a cap c, c * tanh of that / c."""

  scale: float
  soft_cap: float | None = None
  window: int | None = None  # |position of query - position of key| < window

  def scores(
    self,
    q: Float[Array, "*B N D"],
    k: Float[Array, "*B J D"],
    k_scale: Float[Array, "*B J"] | None = None,
  ) -> Float[Array, "*B N J"]:
    """In float32. `k_scale`: what the keys of an 8-bit cache are multiplied by."""
    if k.dtype.itemsize == 1:
      k = k.astype(q.dtype)
    s = jnp.einsum("...nd,...jd->...nj", q, k, preferred_element_type=jnp.float32) * self.scale
    if k_scale is not None:
      s *= k_scale[..., None, :]
    return s if self.soft_cap is None else self.soft_cap * jnp.tanh(s / self.soft_cap)


def masked(s: Float[Array, "*B N J"], seen: Bool[Array, "*#B #T J"]) -> Float[Array, "*B N J"]:
  """-inf where a key is not seen; the N / T rows of an entry, heads of a group, see the same."""
  *front, rows, keys = s.shape
  entries = seen.shape[-2]
  heads = rows // entries if entries > 1 else 1
  grouped = s.reshape(*front, rows // heads, heads, keys)
  return jnp.where(seen[..., None, :], grouped, -jnp.inf).reshape(s.shape)
