"""Verification from the root down, one node at a time.

A node rule sees the target's probabilities p at a node, the probabilities q that its children were
sampled from (None if there are none) and the children in the order of sampling. It returns the
probability of accepting each child. Only the nodes of the path are looked at, so a round costs
(path length) x (children) passes over a vector of V, whatever the size of the tree.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.types import Draft, Verdict
from mtjax.verify.procedure import Outcome, Procedure, children, round_key, sample_one


class Coupling(NamedTuple):
  """A rule's decision at one node for the children that were drafted there."""

  accept: Float[Array, " C"]  # probability that child c is accepted; they sum to at most 1
  residual: Float[Array, " V"]  # probs of the token emitted if no child is accepted


@runtime_checkable
class NodeRule(Protocol):
  """A rule for one node; lossless iff accepted or emitted tokens, averaged over drafts, follow p.

  Children that are not valid must get accept 0, and without any the residual must be p. q may
  hold anything at a node without children, and is None for verifiers that need none.
  """

  def __call__(
    self,
    p: Float[Array, " V"],
    q: Float[Array, " V"],
    token: Int[Array, " C"],
    valid: Bool[Array, " C"],
  ) -> Coupling: ...


def walk(rule: NodeRule) -> Procedure:
  """Returns the verifier that applies `rule` from the root down.

  One uniform per node chooses among its children and "none"; one sample from the last residual is
  emitted. A child with accept 0 is never accepted: uniforms are below 1 and compared with <.
  """

  def at(node, p, draft: Draft):
    child, token, valid = children(draft.tree, node)
    q: Any = None if draft.q is None else draft.q[node]
    return child, rule(p, q, token, valid)

  def decide(processed_logits, draft, key, step):
    key = round_key(key, step)
    coin_key, token_key = jax.random.split(key)
    height = draft.tree.height

    def body(carry):
      node, depth, path, _, _ = carry
      path = path.at[depth].set(node)
      child, coupling = at(node, vocabulary.softmax(processed_logits[node]), draft)
      coin = jax.random.uniform(jax.random.fold_in(coin_key, depth), (), processed_logits.dtype)
      accepted = coin < jnp.cumsum(coupling.accept)
      go = jnp.any(accepted) & (depth < height)
      node = jnp.where(go, child[jnp.argmax(accepted)], node)
      return node, depth + 1, path, coupling.residual, go

    start = (
      jnp.int32(0),
      jnp.int32(0),
      jnp.zeros((height + 1,), jnp.int32),
      jnp.zeros_like(processed_logits[0]),
      jnp.array(True),
    )
    _, count, path, residual, _ = jax.lax.while_loop(lambda carry: carry[-1], body, start)
    return Verdict(path=path, count=count, token=sample_one(residual, token_key))

  def outcome(p, draft):
    nodes = jnp.arange(p.shape[0], dtype=jnp.int32)
    child, coupling = jax.vmap(lambda node, probs: at(node, probs, draft))(nodes, p)

    def down(node, reach):
      slot = jnp.where(child[node] >= 0, child[node], reach.shape[0])
      return reach.at[slot].set(reach[node] * coupling.accept[node], mode="drop")

    reach = jax.lax.fori_loop(0, p.shape[0], down, jnp.zeros_like(p[:, 0]).at[0].set(1))
    return Outcome(reach * (1 - jnp.sum(coupling.accept, axis=1)), coupling.residual)

  return Procedure(decide, outcome)
