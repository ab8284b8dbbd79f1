"""Verification of a whole tree, leaves first.

A tree rule gives every node the probability of stopping there, given that no node before it in
post-order (children in sampling order, then their parent) stopped; the root stops surely. One
uniform per node decides; the first that stops is the end of the path.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.sharding import vocabulary
from mtjax.types import Draft, TokenTree, Verdict
from mtjax.verify.procedure import Outcome, Procedure, children, round_key, sample_one


class Plan(NamedTuple):
  """The decision of a tree rule before any random number is used."""

  stop: Float[Array, " N"]  # given that no earlier node stopped; the root's is unused
  emitted_probs: Callable[[Int[Array, ""]], Float[Array, " V"]]  # of the token after a node


ProbsAt = Callable[[Int[Array, ""] | int], Float[Array, " V"]]  # node -> p there
TreeRule = Callable[[ProbsAt, Draft], Plan]


def leaves_first(rule: TreeRule) -> Procedure:
  """Returns the verifier that tries a tree's nodes in post-order."""

  def decide(processed_logits, draft, key, step):
    coin_key, token_key = jax.random.split(round_key(key, step))
    plan = rule(lambda node: vocabulary.softmax(processed_logits[node]), draft)
    coin = jax.random.uniform(coin_key, plan.stop.shape, processed_logits.dtype)
    path, count = first_to_stop(draft.tree, coin < plan.stop)
    return Verdict(
      path=path, count=count, token=sample_one(plan.emitted_probs(path[count - 1]), token_key)
    )

  def outcome(p, draft):
    plan = rule(lambda node: p[node], draft)
    nodes = jnp.arange(p.shape[0], dtype=jnp.int32)

    def is_before(one, other):
      path, count = first_to_stop(draft.tree, (nodes == one) | (nodes == other))
      return (path[count - 1] == one) & (one != other) & draft.tree.valid[one]

    before = jax.vmap(lambda other: jax.vmap(lambda one: is_before(one, other))(nodes))(nodes)
    stop = jnp.where(draft.tree.valid, plan.stop, 0).at[0].set(1)
    missed = jnp.prod(jnp.where(before, 1 - stop[None, :], 1), axis=1)
    return Outcome(stop * missed, jax.vmap(plan.emitted_probs)(nodes))

  return Procedure(decide, outcome)


def first_to_stop(
  tree: TokenTree, stops: Bool[Array, " N"]
) -> tuple[Int[Array, " P"], Int[Array, ""]]:
  """Returns the path from the root to the first node in post-order that stops, and its length.

  The length is in nodes. The root stops whatever `stops` says; nodes that are not valid do not.
  """
  size = stops.shape[0]
  stops = (stops & tree.valid).at[0].set(True)
  above = jnp.where(tree.parent >= 0, tree.parent, size)

  def up(_, holds):
    return holds | jnp.zeros_like(holds).at[above].max(holds, mode="drop")

  holds = jax.lax.fori_loop(0, tree.height, up, stops)  # some node of its subtree stops

  def down(depth, carry):
    path, count = carry
    child, _, valid = children(tree, path[depth - 1])
    holding = valid & holds[child] & (count == depth)
    go = jnp.any(holding)
    path = path.at[depth].set(jnp.where(go, child[jnp.argmax(holding)], path[depth]))
    return path, count + go

  start = (jnp.zeros((tree.height + 1,), jnp.int32), jnp.int32(1))
  return jax.lax.fori_loop(1, tree.height + 1, down, start)
