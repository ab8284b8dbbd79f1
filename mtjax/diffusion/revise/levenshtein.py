"""Levenshtein editing: decided tokens are replaced, deleted, or get a new mask before them."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyTransferRevise, only_written
from mtjax.diffusion.rule import SHARE, PerRow, Range, id_field, rule
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness


@rule
class Levenshtein(AnyTransferRevise):
  """Decided tokens x_i give way to what the model says there, if p > threshold (LLaDA2.2).

  DELETE: x_i leaves, and what follows in the block moves to the left. INSERT: x_i becomes (MASK,
  x_i), and what follows moves to the right. Any other token that is not x_i takes its place, as in
  `EditTokens`. The block keeps its length (`mtjax.diffusion.moves`); the prompt does not move. All
  of it happens after the masks of the same pass are decided, and at once.

  `delete_id` and `insert_id` are tokens of the model's vocabulary. No mask becomes one of them, so
  no text has them. `mtjax.diffusion.noising.edit_labels` are what a model is trained on.

  A block ends after a pass that had no mask and changed nothing. At most `max_edits` of its passes
  may edit, which bounds it: every other one decides a mask or ends it. The state is their number.
  With an order that remembers positions (`Credit`, `Stability`), what it remembers does not move.
  """

  threshold: PerRow = 0.9
  max_edits: PerRow = 16
  delete_id: int = id_field(default=-1)
  insert_id: int = id_field(default=-1)
  ranges: ClassVar[dict[str, Range]] = {"threshold": SHARE, "max_edits": Range(low=0.0)}
  moves = True
  exactness = Exactness.APPROXIMATE
  reason = "decided tokens are replaced, deleted and moved by a rule that depends on what they are"

  def check_vocabulary(self, vocab_size: int) -> None:
    """Raises ValueError unless the two tokens are different ones of the vocabulary."""
    for name in ("delete_id", "insert_id"):
      token = getattr(self, name)
      if not 0 <= token < vocab_size:
        raise ValueError(
          f"Levenshtein needs {name}, a token of the model's vocabulary of {vocab_size}: got "
          f"{token}"
        )
    if self.delete_id == self.insert_id:
      raise ValueError(f"delete_id and insert_id are one token, {self.delete_id}: give two")

  def prepare(self, view: View) -> View:
    token = jnp.arange(view.logits.shape[-1])
    own = (token == self.delete_id) | (token == self.insert_id)
    none = view.masked[:, :, None] & own
    return view.replace(
      logits=jnp.where(none, -jnp.inf, view.logits), scored=jnp.where(none, -jnp.inf, view.scored)
    )

  def start(self, batch: int, size: int) -> Int[Array, " B"]:
    return jnp.zeros((batch,), jnp.int32)

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    before = jnp.where(view.step == 0, 0, state)
    allowed = (before < self.max_edits)[:, None]
    sure = jnp.exp(candidates.confidence) > self.threshold[:, None]
    changes = view.decided & sure & allowed & (candidates.token != view.token)
    deleted = changes & (candidates.token == self.delete_id)
    inserted = changes & (candidates.token == self.insert_id)
    after = before + jnp.any(changes, axis=1)
    more = ((view.num_open > 0) | jnp.any(changes, axis=1)) & (after < self.max_edits)
    revision = only_written(chosen).replace(
      edited=changes & ~deleted & ~inserted, deleted=deleted, inserted=inserted, more=more
    )
    return revision, after
