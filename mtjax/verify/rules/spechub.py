"""SpecHub: two drafts per node, one of which is always the argmax of q, the hub."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sampling.categorical import argmax
from mtjax.sharding import vocabulary
from mtjax.verify.probs import difference, normalise, ratio
from mtjax.verify.walk import Coupling


def spechub(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Returns SpecHub (EMNLP 2024, aclanthology 2024.emnlp-main.1148): optimal for its drafts.

  Drafts: x_1 ~ q; x_2 ~ q without the hub a if x_1 = a, else x_2 = a, where a is the most
  probable token, the lowest id of equals. So pairs (i, a) have mass q(i), pairs (a, i) mass
  q(a) q(i) / (1 - q(a)). p's mass goes, in this order: i in (i, a); i in (a, i); a in (a, i);
  a in (i, a); the rest is emitted. A node with one child alone is verified as a chain.
  """
  hub = argmax(q)
  is_hub = vocabulary.tokens(q) == hub
  others = jnp.where(is_hub, 0, q)  # mass of (i, a)
  late = vocabulary.at(q, hub) * normalise(others)  # mass of (a, i)
  first = jnp.where(is_hub, 0, jnp.minimum(p, others))
  second = jnp.where(is_hub, 0, jnp.minimum(p - first, late))
  unused_late, unused_first = (vocabulary.total(x) for x in (late - second, others - first))
  p_hub = vocabulary.at(p, hub)
  hub_late = jnp.minimum(p_hub, unused_late)
  hub_first = jnp.minimum(p_hub - hub_late, unused_first)
  used = first + second + jnp.where(is_hub, hub_late + hub_first, 0)
  slot = min(1, token.shape[0] - 1)
  x, y = token[0], token[slot]
  take_first = _share(
    vocabulary.at(first, x), vocabulary.at(others, x)
  )  # accept x of the pair (x, a)
  take_late = _share(
    vocabulary.at(second, y), vocabulary.at(late, y)
  )  # accept y of the pair (a, y)
  both = valid[0] & valid[slot] & (slot > 0)
  alone = jnp.where(valid[0], ratio(vocabulary.at(p, x), vocabulary.at(q, x)), 0)
  elder = jnp.where(x == hub, (1 - take_late) * _share(hub_late, unused_late), take_first)
  younger = jnp.where(x == hub, take_late, (1 - take_first) * _share(hub_first, unused_first))
  accept = jnp.zeros(token.shape, p.dtype).at[slot].set(jnp.where(both, younger, 0))
  rest = jnp.where(valid[0], difference(p, q), p)
  return Coupling(
    accept=accept.at[0].set(jnp.where(both, elder, alone)),
    residual=jnp.where(both, normalise(jnp.maximum(p - used, 0), p), rest),
  )


def _share(part, whole):
  return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)
