"""The two halves of a verifier: a deterministic one that proofs enumerate, and a random one.

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
  """The distribution of the verdict on one drafted tree."""

  stop: Float[Array, " N"]  # probability that node n is the last of the path; sums to 1
  probs: Float[Array, "N V"]  # of the token emitted then; meaningless where stop is 0


class Procedure(NamedTuple):
  """The two halves of a verifier, for one row (arrays of `Draft` without their B)."""

  # (processed_logits [N, V], draft, key, step) -> Verdict
  decide: Callable[[Array, Draft, PRNGKeyArray, Array], Verdict]
  # (p [N, V], draft) -> Outcome
  outcome: Callable[[Array, Draft], Outcome]


def children(
  tree: TokenTree, node: Int[Array, ""]
) -> tuple[Int[Array, " C"], Int[Array, " C"], Bool[Array, " C"]]:
  """Returns nodes, tokens and presence of a node's children, in the order of sampling."""
  nodes = jnp.arange(tree.token.shape[0], dtype=jnp.int32)
  here = tree.valid & (tree.parent == node) & (nodes > 0)
  slot = jnp.where(here, tree.order, tree.breadth)
  child = jnp.full((tree.breadth,), -1, jnp.int32).at[slot].set(nodes, mode="drop")
  return child, tree.token[child], child >= 0


def round_key(key: PRNGKeyArray, step: Int[Array, ""]) -> PRNGKeyArray:
  """Returns one key per round of a row: every round emits, so that steps never repeat."""
  return jax.random.fold_in(key, step)


def sample_one(probs: Float[Array, " V"], key: PRNGKeyArray) -> Int[Array, ""]:
  """Samples one token; a token of probability 0 is never returned."""
  return sample_categorical(jnp.log(probs), key)
