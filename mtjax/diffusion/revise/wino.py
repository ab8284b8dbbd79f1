"""WINO's verification: decided tokens that the rest of the text no longer supports are masked."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates, log_prob_of
from mtjax.diffusion.protocols import AnyTransferRevise, only_written
from mtjax.diffusion.ranking import first
from mtjax.diffusion.rule import PROBABILITY, PerRow, Range, rule
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness

_FIRST_LIMIT = 30  # `last_accept` of a block's first pass


@rule
class Wino(AnyTransferRevise):
  """Masks decided tokens again whose probability at their shadow entry is below a threshold.

  The shadow entry of a position is a mask that sees all of the text but that position itself, so it
  predicts the token from the rest (2507.18578, `decoding_wino`). In a network with shifted logits,
  which the paper does not treat, the entry before the position predicts it, without seeing it
  (`MaskedNetwork.with_shadow`). In both, keys of other entries that have seen it still tell of it.

  Tokens of this pass are not verified yet. In a pass that decides one token nothing is masked
  again. If as many tokens or more would be as the pass before decided (30 before the first), only
  so many less one are, those of the lowest probability: two passes gain a token at least, so a
  block ends.

  The state is the number of tokens that the row's last pass decided. The published code decodes one
  row; here every row has its own counter. It goes with `WinoDraft`.
  """

  threshold: PerRow = 0.9
  ranges: ClassVar[dict[str, Range]] = {"threshold": PROBABILITY}
  exactness = Exactness.APPROXIMATE
  reason = "decided tokens are masked again by a rule that depends on what they are"
  needs_shadow = True

  def start(self, batch: int, size: int) -> Int[Array, " B"]:
    return jnp.full((batch,), _FIRST_LIMIT, jnp.int32)

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    if view.shadow is None:
      raise ValueError("Wino needs the logits of shadow entries, View.shadow")
    before = jnp.where(view.step == 0, _FIRST_LIMIT, state)
    probability = jnp.exp(log_prob_of(view.shadow, view.token))
    low = view.decided & (probability < self.threshold[:, None])
    num_low = jnp.sum(low, axis=1, dtype=jnp.int32)
    num_chosen = jnp.sum(chosen, axis=1, dtype=jnp.int32)
    count = jnp.where(num_low >= before, before - 1, num_low)
    count = jnp.where(num_chosen > 1, count, 0)
    remasked = first(-probability, low, count)
    after = jnp.where(num_chosen > 0, num_chosen, before)
    return only_written(chosen).replace(remasked=remasked), after
