"""What decides a canvas: an order, a transfer rule and a revision rule, which fit together."""

import dataclasses

from jaxtyping import PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.order.random_positions import RandomPositions
from mtjax.diffusion.protocols import OrderPolicy, ReviseRule, TransferRule
from mtjax.diffusion.revise.keep import KeepDecided
from mtjax.diffusion.rule import rule
from mtjax.diffusion.transfer.first_hitting import FirstHitting
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness


@rule
class DecidingPolicy:
  """The three rules of a pass. A pytree: their settings are arguments of the compiled program.

  Raises ValueError for rules that do not fit together.
  """

  order: OrderPolicy = RandomPositions()
  transfer: TransferRule = FirstHitting()
  revise: ReviseRule = KeepDecided()

  def __post_init__(self) -> None:
    self.transfer.check(self.order)
    self.revise.check(self.transfer)

  @property
  def exactness(self) -> Exactness:
    """Lossless if all three are: the distribution of one position per pass, in a fixed or random
    order."""
    if all(part.exactness is Exactness.LOSSLESS for part in self._parts):
      return Exactness.LOSSLESS
    return Exactness.APPROXIMATE

  @property
  def reason(self) -> str:
    """Why it is not exact: the reasons of its rules; empty where it is."""
    return "; ".join(part.reason for part in self._parts if part.reason)

  def for_rows(self, batch: int) -> "DecidingPolicy":
    """Returns the policy with an array [B] for every setting; raises ValueError as rules do."""
    parts = {f.name: getattr(self, f.name).for_rows(batch) for f in dataclasses.fields(self)}
    return dataclasses.replace(self, **parts)

  def start(self, batch: int, size: int, vocab: int) -> tuple[PyTree, PyTree]:
    """Returns the states of `order` and `revise` before the first pass."""
    # Each pass closes a position for good, so that a block has no more passes than positions.
    waits = size if self.transfer.advances and not self.revise.revises else None
    return self.order.start(batch, size, vocab, waits), self.revise.start(batch, size)

  def decide(
    self, revise_state: PyTree, view: View, candidates: CanvasCandidates
  ) -> tuple[Revision, PyTree]:
    """Returns the decisions of a pass, and the new state of `revise`.

    The view is the one that candidates were sampled from, after `order.prepare`.
    """
    score = self.order.score(view, candidates)
    chosen = self.transfer.choose(view, candidates, score)
    return self.revise.revise(revise_state, view, candidates, chosen)

  @property
  def _parts(self):
    return self.order, self.transfer, self.revise
