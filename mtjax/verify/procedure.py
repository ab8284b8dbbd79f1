"""What a verifier is: a deterministic part that proofs enumerate, and coins.

Everything here is for one row; `mtjax.verify.Verifier` maps over the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtjax.sampling.categorical import sample_categorical
from mtjax.types import Draft, TokenTree, Verdict


class Outcome(NamedTuple):
  """What verification does to one drafted tree, coins not tossed."""

  stop: Float[Array, " N"]  # probability that node n is the last of the path; sums to 1
  probs: Float[Array, "N V"]  # law of the emitted token then; meaningless where stop is 0


class Procedure(NamedTuple):
  """The two halves of a verifier, for one row (arrays of `Draft` without their B)."""

  # (processed_logits [N, V], draft, key, step) -> Verdict
  decide: Callable[[Array, Draft, PRNGKeyArray, Array], Verdict]
  # (p [N, V], draft) -> Outcome
  outcome: Callable[[Array, Draft], Outcome]


def children(
  tree: TokenTree, node: Int[Array, ""]
) -> tuple[Int[Array, " C"], Int[Array, " C"], Bool[Array, " C"]]:
  """Nodes, tokens and presence of a node's children, in the order they were drawn."""
  nodes = jnp.arange(tree.token.shape[0], dtype=jnp.int32)
  here = tree.valid & (tree.parent == node) & (nodes > 0)
  slot = jnp.where(here, tree.order, tree.breadth)
  child = jnp.full((tree.breadth,), -1, jnp.int32).at[slot].set(nodes, mode="drop")
  return child, tree.token[child], child >= 0


def round_key(key: PRNGKeyArray, step: Int[Array, ""]) -> PRNGKeyArray:
  """A key of its own for each round of a row: every round emits, so steps never repeat."""
  return jax.random.fold_in(key, step)


def sample_one(probs: Float[Array, " V"], key: PRNGKeyArray) -> Int[Array, ""]:
  """One token; a zero is never drawn."""
  return sample_categorical(jnp.log(probs), key)
