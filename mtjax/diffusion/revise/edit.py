"""Token-to-token editing: a decided token gives way to one that the model is sure of."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyTransferRevise, only_written
from mtjax.diffusion.rule import SHARE, PerRow, Range, rule
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness


@rule
class EditTokens(AnyTransferRevise):
  """A decided token that differs from its candidate becomes it, if p(candidate) > threshold.

  LLaDA2.1's T2T, beside `Threshold` as its M2T; both are written in the same pass. The candidate of
  a greedy row is the argmax. After the masks of a block are gone, passes that only edit follow
  until one changes nothing, at most max_post_steps. The state is their number so far.
  """

  threshold: PerRow = 0.9
  max_post_steps: PerRow = 16
  ranges: ClassVar[dict[str, Range]] = {"threshold": SHARE, "max_post_steps": Range(low=0.0)}
  exactness = Exactness.APPROXIMATE
  reason = "decided tokens are replaced by a rule that depends on what they are"

  def start(self, batch: int, size: int) -> Int[Array, " B"]:
    return jnp.zeros((batch,), jnp.int32)

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    sure = jnp.exp(candidates.confidence) > self.threshold[:, None]
    edited = view.decided & (candidates.token != view.token) & sure
    had_masks = view.num_open > 0
    only_edits = ~had_masks & jnp.any(view.decided, axis=1)
    post = jnp.where(view.step == 0, 0, state) + only_edits
    more = (had_masks | jnp.any(edited, axis=1)) & (post < self.max_post_steps)
    return only_written(chosen).replace(edited=edited, more=more), post
