"""The target chooses its token at each node; the path follows as long as a child has it.

Greedy verification and sample-and-match differ only in how they choose. The emitted token is the
chosen one itself, never a second sample: to sample again after a mismatch is biased.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtjax.sampling.categorical import argmax
from mtjax.sampling.logits import sample
from mtjax.types import Draft, Verdict
from mtjax.verify.procedure import Outcome, Procedure, children

# (processed logits [V], the row's key, number of tokens emitted before this one) -> token
Choose = Callable[[Float[Array, " V"], PRNGKeyArray, Int[Array, ""]], Int[Array, ""]]


def sampled(logits: Float[Array, " V"], key: PRNGKeyArray, step: Int[Array, ""]) -> Array:
  """Returns the token that plain decoding samples at this step: same function, key and step.

  Therefore the text is identical to that of decoding without drafts, token by token, whatever the
  drafts are, as far as the logits are identical (alipay's lookahead 2312.12728, SpecExec
  2406.02532).
  """
  return sample(logits[None], key[None], step[None])[0]


def greedy(logits: Float[Array, " V"], key: PRNGKeyArray, step: Int[Array, ""]) -> Array:
  """Returns the most probable token; ties go to the lowest id, as in `mtjax.sampling.process`."""
  return argmax(logits)


def one_hot(p: Float[Array, " V"]) -> Float[Array, " V"]:
  """Returns the distribution of the greedy choice: all of its mass is on the argmax."""
  return jax.nn.one_hot(argmax(p), p.shape[0], dtype=p.dtype)


def follow(
  choose: Choose, transform: Callable[[Float[Array, " V"]], Float[Array, " V"]]
) -> Procedure:
  """Returns the verifier that follows `choose`; `transform` maps p to the probs of its choice."""

  def decide(processed_logits, draft: Draft, key, step):
    height = draft.tree.height

    def body(carry):
      node, depth, path, _, _ = carry
      path = path.at[depth].set(node)
      chosen = choose(processed_logits[node], key, step + depth)
      child, token, valid = children(draft.tree, node)
      match = matches(token, valid, chosen)
      go = jnp.any(match) & (depth < height)
      node = jnp.where(go, child[jnp.argmax(match)], node)
      return node, depth + 1, path, chosen, go

    path = jnp.zeros((height + 1,), jnp.int32)
    start = (jnp.int32(0), jnp.int32(0), path, jnp.int32(0), jnp.array(True))
    _, count, path, chosen, _ = jax.lax.while_loop(lambda carry: carry[-1], body, start)
    return Verdict(path=path, count=count, token=chosen)

  def outcome(p, draft: Draft):
    """Sums over every choice at every node, weighed by its probability."""
    nodes = jnp.arange(p.shape[0], dtype=jnp.int32)
    child, token, valid = jax.vmap(lambda node: children(draft.tree, node))(nodes)
    chosen = jnp.arange(p.shape[1], dtype=jnp.int32)
    weight = jax.vmap(transform)(p)
    hit = jax.vmap(lambda t, v: jax.vmap(lambda y: matches(t, v, y))(chosen))(token, valid)
    is_child = jnp.any(hit, axis=2)  # [N, V]: the choice is a child
    to = jnp.take_along_axis(child, jnp.argmax(hit, axis=2).reshape(child.shape[0], -1), axis=1)

    def down(node, reach):
      slot = jnp.where(is_child[node], to[node], reach.shape[0])
      return reach.at[slot].add(reach[node] * weight[node], mode="drop")

    reach = jax.lax.fori_loop(0, p.shape[0], down, jnp.zeros_like(p[:, 0]).at[0].set(1))
    ends = jnp.where(is_child, 0, weight)
    mass = jnp.sum(ends, axis=1, keepdims=True)
    return Outcome(reach * mass[:, 0], ends / jnp.where(mass > 0, mass, 1))

  return Procedure(decide, outcome)


def matches(
  token: Int[Array, " C"], valid: Bool[Array, " C"], chosen: Int[Array, ""]
) -> Bool[Array, " C"]:
  return valid & (token == chosen)
