"""Masks over positions and depths: at each position the k deepest codes are masked.

A state of noise is one whole number k per position, 0 to D (ResGen 2412.10208, sec. 3). With n
masked codes in total, the k are distributed as if n of all L * D codes were taken without
replacement and only their number per position counted: multivariate hypergeometric. Shapes: B rows,
L positions, D depths.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


def cosine_share(time: Float[Array, "*T"]) -> Float[Array, "*T"]:
  """Returns gamma(r) = cos(pi / 2 * r), the share of masked codes at a time of 0 (all) to 1."""
  return jnp.cos(jnp.pi / 2 * time)


def mask_counts(time: Float[Array, "*T"], total: int) -> Int[Array, "*T"]:
  """Returns n = ceil(gamma(r) * L * D), at least 1, for times in [0, 1)."""
  return jnp.clip(jnp.ceil(cosine_share(time) * total), 1, total).astype(jnp.int32)


def counts_of_ranks(noise: Float[Array, "*B L D"], n: Int[Array, "*B"]) -> Int[Array, "*B L"]:
  """Returns how many of a position's codes are among the n smallest of all noise.

  For noise without ties, independent and of one distribution, the result is multivariate
  hypergeometric: P(k) = prod_i C(D, k_i) / C(L D, n) for sum k = n.
  """
  flat = noise.reshape(*noise.shape[:-2], -1)
  rank = jnp.argsort(jnp.argsort(flat, axis=-1), axis=-1)
  among = (rank < jnp.asarray(n)[..., None]).reshape(noise.shape)
  return jnp.sum(among, axis=-1).astype(jnp.int32)


def sample_counts(
  key: Key[Array, ""], n: Int[Array, "B"], *, length: int, depth: int
) -> Int[Array, "B L"]:
  """Returns numbers of masked codes per position, whose sum in a row is n."""
  noise = jax.random.uniform(key, (n.shape[0], length, depth))
  return counts_of_ranks(noise, n)


def masked_tokens(counts: Int[Array, "*B"], depth: int) -> Bool[Array, "*B D"]:
  """Returns true for the `counts` deepest of each position's codes."""
  return jnp.arange(depth) >= depth - counts[..., None]


def remask(
  counts: Int[Array, "*B L"],
  score: Float[Array, "*B L"],
  noise: Float[Array, "*B L D"],
  n: Int[Array, ""],
) -> Int[Array, "*B L"]:
  """Returns new numbers of masked codes, whose sum is n and none of which is larger than before.

  Every masked code has its position's score plus its own noise. All but the n lowest are
  unmasked. A position unmasks as many of its codes as are among those, the shallowest first. For
  equal scores and independent noise this is the reverse of the forward process, exactly: k' is
  multivariate hypergeometric with n of the `counts`, so hypergeometric counts stay so. Noise of 0
  keeps whole positions of the lowest scores masked.
  """
  depth = noise.shape[-1]
  slot = jnp.arange(depth) < counts[..., None]
  value = jnp.where(slot, score[..., None] + noise, jnp.inf)
  return counts_of_ranks(value, jnp.broadcast_to(n, value.shape[:-2]))
