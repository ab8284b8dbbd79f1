"""Block verification: the drafts of a chain are judged together, the longest prefix first."""

import jax
import jax.numpy as jnp

from mtjax.sharding import vocabulary
from mtjax.types import Draft
from mtjax.verify.plan import Plan, ProbsAt
from mtjax.verify.probs import normalise, ratio
from mtjax.verify.procedure import children


def block(target_probs: ProbsAt, draft: Draft) -> Plan:
  """Returns the plan of Sun et al. (2403.10444, alg. 2) for a chain x_1..x_g sampled from q.

  P_0 = 1, P_i = min(1, P_(i-1) p_i(x_i) / q_i(x_i)); prefix i stands with probability
  m_i / (m_i + 1 - P_i), where m_i = sum (P_i p_(i+1) - q_(i+1))+, the last with P_g; the longest
  that stands is kept, failures before it or not, and y ~ norm((P_i p_(i+1) - q_(i+1))+), after the
  last ~ p. Never accepts less than `chain` on average, and the same for one-hot q. Chains only.
  """
  tree, q = draft.tree, draft.q
  size = tree.token.shape[0]

  def at(node):
    child, token, valid = children(tree, node)
    return child[0], token[0], valid[0], target_probs(node), q[node]

  def down(node, carry):
    weight, stand = carry
    child, x, more, p, draft_probs = at(node)
    entered = ratio(weight[node] * vocabulary.at(p, x), vocabulary.at(draft_probs, x))
    spare = vocabulary.total(jnp.maximum(weight[node] * p - draft_probs, 0))
    whole = spare + 1 - weight[node]
    inner = jnp.where(whole > 0, spare / jnp.where(whole > 0, whole, 1), 1)
    weight = weight.at[jnp.where(more, child, size)].set(entered, mode="drop")
    return weight, stand.at[node].set(jnp.where(more, inner, weight[node]))

  def emitted(node):
    _, _, more, p, draft_probs = at(node)
    return jnp.where(more, normalise(jnp.maximum(weight[node] * p - draft_probs, 0), p), p)

  nothing = jnp.zeros((size,), target_probs(0).dtype)
  weight, stand = jax.lax.fori_loop(0, size, down, (nothing.at[0].set(1), nothing))
  return Plan(jnp.where(tree.valid, stand, 0), emitted)
