"""Traversal verification: block verification for trees."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.types import Draft, DraftScheme
from mtjax.verify.plan import Plan, ProbsAt
from mtjax.verify.probs import normalise, ratio, without
from mtjax.verify.procedure import children


class Visit(NamedTuple):
  """The state of one node after all its children were refused."""

  enter: Float[Array, " C"]  # the weight that each child starts from
  stop: Float[Array, ""]  # the rest of the node's own weight
  probs: Float[Array, " V"]  # probs of the token emitted if the path ends here


def traversal(target_probs: ProbsAt, draft: Draft) -> Plan:
  """Returns the plan of traversal verification (2505.12398); on a chain it equals `block`.

  visit(node, r): p, q of the node; for children x in order: visit(child, min(1, r p(x)/q(x))),
  and if nothing in there stopped: m = sum (r p - q)+, p <- norm((r p - q)+), r <- m / (m + 1 - r),
  and q <- norm(q with q(x) = 0) for drafts without replacement. Then the path ends at the node with
  probability r, and y ~ p. visit(root, 1). Children must stay in sampling order.

  The effect of a node on its parent does not depend on the nodes below it, so one pass over the
  nodes, parents first, finds every r; rows of V are not kept.
  """
  tree, q = draft.tree, draft.q
  tried = without if draft.scheme is DraftScheme.WITHOUT_REPLACEMENT else lambda q, x: q
  size = tree.token.shape[0]

  def at(node, weight):
    child, token, valid = children(tree, node)
    return child, visit(target_probs(node), q[node], token, valid, weight[node], tried)

  def down(node, carry):
    weight, stop = carry
    child, seen = at(node, weight)
    slot = jnp.where(child >= 0, child, size)
    return weight.at[slot].set(seen.enter, mode="drop"), stop.at[node].set(seen.stop)

  nothing = jnp.zeros((size,), target_probs(0).dtype)
  weight, stop = jax.lax.fori_loop(0, size, down, (nothing.at[0].set(1), nothing))
  return Plan(jnp.where(tree.valid, stop, 0), lambda node: at(node, weight)[1].probs)


def visit(
  p: Float[Array, " V"],
  q: Float[Array, " V"],
  token: Int[Array, " C"],
  valid: Bool[Array, " C"],
  weight: Float[Array, ""],
  tried: Callable[[Float[Array, " V"], Int[Array, ""]], Float[Array, " V"]],
) -> Visit:
  """One node of `traversal`; `tried`: q after a child that was refused."""
  count = jnp.max(jnp.where(valid, jnp.arange(1, token.shape[0] + 1), 0))

  def child(state):
    c, p, q, r, enter = state
    x = token[c]
    q_x = vocabulary.at(q, x)
    real = valid[c] & (q_x > 0)
    rest = jnp.maximum(r * p - q, 0)
    spare = vocabulary.total(rest)
    whole = spare + 1 - r
    left = jnp.where(whole > 0, spare / jnp.where(whole > 0, whole, 1), 1)
    return (
      c + 1,
      jnp.where(real, normalise(rest, p), p),
      jnp.where(real, tried(q, x), q),
      jnp.where(real, left, r),
      enter.at[c].set(jnp.where(real, ratio(r * vocabulary.at(p, x), q_x), 0)),
    )

  start = (jnp.zeros_like(count), p, q, weight, jnp.zeros(token.shape, p.dtype))
  _, p, _, r, enter = jax.lax.while_loop(lambda state: state[0] < count, child, start)
  return Visit(enter, r, p)
