"""Drafts cut to a size, and results of branches in shapes that all of them share."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.decode.history import TreesObserved
from mtjax.decode.speculative import Decision
from mtjax.draft.shaped.shape import Shape
from mtjax.types import Draft, TokenTree, Verdict


def cut(draft: Draft, size: int) -> Draft:
  """Returns the first `size` nodes of a draft; parents stand before their children."""
  tree = draft.tree
  if size >= tree.size:
    return draft

  def first(x):
    return None if x is None else x[:, :size]

  names = ("token", "parent", "depth", "order", "valid")
  tree = tree.replace(
    **{name: first(getattr(tree, name)) for name in names}, height=min(tree.height, size - 1)
  )
  return draft.replace(
    tree=tree,
    q=first(draft.q),
    offered=first(draft.offered),
    survival=first(draft.survival),
  )


def padded_decision(decision: Decision, tree: TokenTree) -> Decision:
  """Returns a decision on the first nodes of `tree` in the shapes of one on the whole tree."""
  seen, size = decision.tree, tree.size
  if seen.size == size:
    return decision
  return decision.replace(
    tree=tree.replace(valid=_to(seen.valid, 1, size)),
    verdict=padded_path(decision.verdict, tree.height),
    logits=_to(decision.logits, 1, size),
    processed=_to(decision.processed, 1, size),
    kv=jax.tree.map(lambda x: _to(x, 2, size), decision.kv),
    position=_to(decision.position, 1, size),
  )


def first_nodes(shape: Shape, nodes: int, size: Int[Array, ""] | int) -> Shape:
  """Returns a shape of `nodes` nodes, of which the first `size` may be there."""
  shape = jax.tree.map(lambda x: x[:nodes], shape)
  return shape.replace(there=shape.there & (jnp.arange(nodes) < size))


def padded_path(verdict: Verdict, height: int) -> Verdict:
  """Returns a verdict with the path of a tree of that height."""
  return verdict.replace(path=_to(verdict.path, 1, height + 1))


def padded_observed(seen: TreesObserved, size: int, width: int) -> TreesObserved:
  """Returns trees of `size` nodes and paths of `width`; draft_prob is nan for drafts by a rule."""
  draft_prob: Float[Array, "B N"] = (
    jnp.full_like(seen.target_prob, jnp.nan) if seen.draft_prob is None else seen.draft_prob
  )
  return dataclasses.replace(
    seen,
    token=_to(seen.token, 1, size),
    parent=_to(seen.parent, 1, size),
    valid=_to(seen.valid, 1, size),
    draft_prob=_to(draft_prob, 1, size),
    target_prob=_to(seen.target_prob, 1, size),
    path=_to(seen.path, 1, width),
    num_emitted=seen.num_emitted.astype(jnp.int32),
  )


def _to(x: Array, axis: int, size: int) -> Array:
  widths = [(0, 0)] * x.ndim
  widths[axis] = (0, size - x.shape[axis])
  return jnp.pad(x, widths)
