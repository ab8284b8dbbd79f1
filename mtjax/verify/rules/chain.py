"""Chain rejection sampling: one draft per position, kept with probability min(1, p(x) / q(x))."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.types import Draft, Verdict
from mtjax.verify.probs import difference, ratio
from mtjax.verify.procedure import Procedure, round_key, sample_one
from mtjax.verify.walk import Coupling, walk


def rejection(
  p: Float[Array, " V"], q: Float[Array, " V"], token: Int[Array, " C"], valid: Bool[Array, " C"]
) -> Coupling:
  """Returns the coupling of 2211.17192 (alg. 1) and 2302.01318 (alg. 2) at one position.

  A refused draft is replaced by y ~ norm((p - q)+), and y ~ p follows the last one kept. q must be
  exactly the distribution that x was sampled from. x is kept with probability sum min(p, q) on
  average. C is 1.
  """
  x = token[0]
  take = jnp.where(valid[0], ratio(vocabulary.at(p, x), vocabulary.at(q, x)), 0)
  return Coupling(take[None], jnp.where(valid[0], difference(p, q), p))


def chain() -> Procedure:
  """Returns `walk(rejection)`, with all positions at once: the same random numbers and results.

  A step of a walk is a dozen of small operations, which on a CPU cost more than what they compute.
  """
  return Procedure(_decide, walk(rejection).outcome)


def _decide(processed_logits, draft: Draft, key, step):
  coin_key, token_key = jax.random.split(round_key(key, step))
  tree, height = draft.tree, draft.tree.height
  depth = jnp.where(tree.valid, tree.depth, height + 1)
  nodes = jnp.arange(tree.token.shape[0], dtype=jnp.int32)
  path = jnp.zeros((height + 1,), jnp.int32).at[depth].set(nodes, mode="drop")
  there = jnp.zeros((height + 1,), bool).at[depth].set(True, mode="drop")
  at, child = path[:-1], path[1:]
  p, token = vocabulary.softmax(processed_logits), tree.token[child]
  accept = jnp.where(there[1:], ratio(_of_tokens(p, at, token), _of_tokens(draft.q, at, token)), 0)
  coins = jax.vmap(
    lambda place: jax.random.uniform(
      jax.random.fold_in(coin_key, place), (), processed_logits.dtype
    )
  )(jnp.arange(height))
  kept = jnp.sum(jnp.cumprod(coins < accept), dtype=jnp.int32)
  last = path[kept]
  refused = jnp.append(there[1:], False)[kept]
  residual = jnp.where(refused, difference(p[last], draft.q[last]), p[last])
  return Verdict(path=path, count=kept + 1, token=sample_one(residual, token_key))


def _of_tokens(probs, node, token):
  """Returns probs[node, token]."""
  return (
    probs[node, token] if not vocabulary.is_split() else jax.vmap(vocabulary.at)(probs[node], token)
  )
