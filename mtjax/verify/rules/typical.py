"""Typical acceptance: drafts that are probable enough are accepted. APPROXIMATE."""

import jax
import jax.numpy as jnp

from mtjax.sharding import vocabulary
from mtjax.types import Draft
from mtjax.verify.plan import Plan, TreeRule
from mtjax.verify.procedure import children


def typical(epsilon: float = 0.09, delta: float = 0.3) -> TreeRule:
  """Returns Medusa's rule (2401.10774, sec. 2.3.1): accept x if p(x) > min(eps, delta exp(-H(p))).

  The deepest node whose whole path is accepted ends the path, the most probable path of equals;
  then y ~ p. Acceptance is not random, so wherever drafts are probable enough the text follows the
  drafts' distribution and not the target's; without drafts it is plain sampling. The defaults are
  Medusa's: 0.09 as hard threshold, and its square root. Raises ValueError for a value outside (0,
  1].
  """
  for name, value in (("epsilon", epsilon), ("delta", delta)):
    if not 0 < value <= 1:
      raise ValueError(f"{name} must be above 0 and at most 1, got {value}")

  def rule(target_probs, draft: Draft) -> Plan:
    tree = draft.tree
    nodes = jnp.arange(tree.token.shape[0], dtype=jnp.int32)

    def at(node):
      p = target_probs(node)
      _, token, valid = children(tree, node)
      entropy = -vocabulary.total(p * jnp.log(jnp.where(p > 0, p, 1)))
      p_x = vocabulary.at(p, token)
      likely = p_x > jnp.minimum(epsilon, delta * jnp.exp(-entropy))
      return valid & likely, jnp.log(p_x)

    likely, score = jax.lax.map(at, nodes)  # [N, C]
    parent = jnp.maximum(tree.parent, 0)
    likely = likely[parent, tree.order]
    score = score[parent, tree.order]

    def down(node, carry):
      kept, total = carry
      up = parent[node]
      kept = kept.at[node].set(kept[up] & likely[node] & tree.valid[node])
      return kept, total.at[node].set(total[up] + score[node])

    start = (
      jnp.zeros(nodes.shape, bool).at[0].set(True),
      jnp.zeros(nodes.shape, score.dtype),
    )
    kept, total = jax.lax.fori_loop(1, nodes.size, down, start)
    depth = jnp.where(kept, tree.depth, -1)
    best = jnp.argmax(jnp.where(depth == jnp.max(depth), total, -jnp.inf))
    return Plan((nodes == best).astype(score.dtype), target_probs)

  return rule
