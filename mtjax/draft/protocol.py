"""What proposes drafts: one Protocol, a file for each of them beside it."""

from typing import Protocol

import jax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from mtjax.rounds import Request
from mtjax.types import Draft, TokenTree, Verdict

# Folded into a row's key: drafts must not share randomness with their verification, which uses the
# key with the row's step, a small number.
_STREAM = 0xD4AF7000


class Drafter(Protocol):
  """Proposes a tree a round. Frozen and hashable; what changes is its state, a pytree.

  A drafter never sees the target's randomness. Rows without a draft have a tree in which only the
  root is valid: they decode plainly in the same program.
  """

  @property
  def height(self) -> int:
    """Static: its trees are no deeper."""
    ...

  @property
  def breadth(self) -> int:
    """Static: no node has more children."""
    ...

  @property
  def forwards(self) -> int:
    """Of a draft model, a row and round."""
    ...

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, room: int
  ) -> PyTree:
    """The state after the prompts; up to `room` tokens a row will follow."""
    ...

  def propose(
    self,
    params: PyTree,
    state: PyTree,
    request: Request,
    last: Int[Array, " B"],
    step: Int[Array, " B"],
  ) -> tuple[Draft, PyTree]:
    """A tree whose root is `last`, the token emitted last; `step` tokens were emitted so far."""
    ...

  def update(
    self,
    state: PyTree,
    tree: TokenTree,
    verdict: Verdict,
    token: Int[Array, "B P"],
    taken: Int[Array, " B"],
  ) -> PyTree:
    """The state after a round in which row b emitted token[b, :taken[b]]; 0: it had ended."""
    ...


def draft_keys(request: Request, step: Int[Array, " B"]) -> PRNGKeyArray:
  """Keys [B] to draw this round's drafts with, independent of those of verification."""

  def one(key, step):
    return jax.random.fold_in(jax.random.fold_in(key, _STREAM), step)

  return jax.vmap(one)(request.key, step)
