"""Drafters propose drafts: the Protocol that each of them implements in a file of its own."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from mtjax.cache import KVCache
from mtjax.models import Model, check_causal
from mtjax.rounds.placement import warn_of_heads
from mtjax.rounds.state import Request
from mtjax.sharding import mesh_here
from mtjax.trees import Topology
from mtjax.types import Draft, DraftScheme, TokenTree, Verdict

# Folded into a row's key: drafts must not share randomness with their verification, which uses the
# key with the row's step, a small number.
_STREAM = 0xD4AF7000


class Context(struct.PyTreeNode):
  """What a drafter may read before a round."""

  request: Request
  last: Int[Array, " B"]  # the token emitted last: the root of the tree
  step: Int[Array, " B"]  # number of tokens emitted so far, including `last`; >= 1
  active: Bool[Array, " B"]  # rows that have not ended
  cache: KVCache  # the target's; it holds the text before `last`


class Round(struct.PyTreeNode):
  """The result of one round, for the drafter that proposed its tree."""

  tree: TokenTree  # as it was verified: what could not be emitted, or was not offered, is invalid
  verdict: Verdict
  token: Int[Array, "B P"]  # row b emitted token[b, :num_emitted[b]]
  num_emitted: Int[Array, " B"]  # per row; 0: the row had ended before
  logits: Float[Array, "B N V"]  # the target's raw logits after every node that was computed


@runtime_checkable
class Drafter(Protocol):
  """Proposes one tree per round. Frozen and hashable; what changes is its state, a pytree.

  A drafter never sees the target's randomness. Rows without a draft have a tree in which only the
  root is valid: they decode plainly in the same program.
  """

  @property
  def height(self) -> int:
    """Largest depth of its trees; static."""
    ...

  @property
  def breadth(self) -> int:
    """Largest number of children of a node; static."""
    ...

  @property
  def scheme(self) -> DraftScheme:
    """Draft scheme for requests that sample. Greedy ones are verified greedily in any case."""
    ...

  @property
  def fixed_shape(self) -> Topology | None:
    """Shape of all its trees; None where it depends on what was sampled, and for chains."""
    ...

  @property
  def estimates_survival(self) -> bool:
    """Whether its drafts have `Draft.survival`; only those that are not sampled may; static."""
    ...

  def check(self, target: Model) -> None:
    """Raises ValueError, before compilation, for a target that it cannot draft for.

    The mesh of a decoding is set (`mtjax.sharding.mesh_here`), for warnings about what it does not
    divide.
    """
    ...

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> PyTree:
    """Returns the state after the prompts; up to `max_new` tokens per row will follow."""
    ...

  def propose(self, params: PyTree, state: PyTree, context: Context) -> tuple[Draft, PyTree]:
    """Returns a draft whose root is `context.last`, and the new state."""
    ...

  def update(self, state: PyTree, round: Round) -> PyTree:
    """Returns the state after a round. Rows that emitted nothing stay as before `propose`."""
    ...


class ForAnyTarget:
  """Base of drafters that draft for every target, in trees of no fixed shape."""

  @property
  def fixed_shape(self) -> Topology | None:
    return None

  @property
  def estimates_survival(self) -> bool:
    return False

  def check(self, target: Model) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class WithDraftModel:
  """Base of drafters with a `model` of the target's vocabulary, in trees of no fixed shape."""

  model: Model

  @property
  def fixed_shape(self) -> Topology | None:
    return None

  @property
  def estimates_survival(self) -> bool:
    return False

  def check(self, target: Model) -> None:
    check_draft_model(self.model, target)
    warn_of_draft_heads(self.model)


def check_draft_model(draft: Model, target: Model) -> None:
  """Raises ValueError for a draft model that is not causal or that has other sizes.

  The vocabularies must have one size, and the draft model at least the target's positions.
  """
  check_causal(draft, "the draft model")
  check_sizes(draft, target)


def warn_of_draft_heads(draft: Model) -> None:
  """Warns of key/value heads of a draft model that the mesh does not divide, if one is set.

  For the `check` of a drafter whose model has a cache of its own.
  """
  if (mesh := mesh_here()) is not None:
    # The stack level is that of the caller of generate or stream, past both methods `check`.
    warn_of_heads("the draft model", draft.config.kv_heads, mesh, stacklevel=6)


def check_sizes(draft: Model, target: Model) -> None:
  """Raises ValueError for a draft model of another vocabulary, or of fewer positions."""
  for field in ("vocab_size", "max_position"):
    size, wanted = getattr(draft.config, field), getattr(target.config, field)
    if field == "vocab_size" and size != wanted:
      raise ValueError(
        f"the draft model has {field} {size}, the target {wanted}: for models of one tokenizer, "
        "mtjax.draft.in_vocabulary gives the draft model the target's vocabulary"
      )
    if size < wanted:
      raise ValueError(f"the draft model has {field} {size}, the target {wanted}")


def draft_keys(context: Context, places: int) -> Key[Array, "B {places}"]:
  """Returns keys to sample this round's drafts with, independent of those of verification."""
  return keys_of_drafts(context.request.key, context.step, places)


def keys_of_drafts(
  key: Key[Array, " B"], step: Int[Array, " B"], places: int
) -> Key[Array, "B {places}"]:
  """Returns `draft_keys` from the keys [B] of the rows and their numbers of tokens so far.

  All are made at once: on a CPU each fold is a small loop, dearer than what it computes.
  """

  def one(key, step):
    key = jax.random.fold_in(jax.random.fold_in(key, _STREAM), step)
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.arange(places))

  return jax.vmap(one)(key, step)
