"""The protocols of a denoising loop's rules, and their bases, which have the defaults.

One pass: the order may `prepare` the model's logits, which are then processed as in any decoding;
`sample_candidates`, `score` them, `choose` positions, `revise`, and `apply_revision`. All of it is
traced, once per program.
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.rule import PerRowRule
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness


@runtime_checkable
class OrderPolicy(Protocol):
  """Says which positions come first."""

  @property
  def exactness(self) -> Exactness:
    """What is kept if one position is decided per pass, the first of this order."""
    ...

  @property
  def reason(self) -> str:
    """Why the order is not exact; empty where it is."""
    ...

  @property
  def probability(self) -> bool:
    """True if scores are in [0, 1], so that a threshold on them has a meaning."""
    ...

  @property
  def uniform(self) -> bool:
    """True if scores are independent and equally distributed, whatever the logits are."""
    ...

  @property
  def measures_drift(self) -> bool:
    """True if it sets `View.drift`."""
    ...

  def for_rows(self, batch: int) -> "OrderPolicy":
    """Returns the policy with an array [B] for every setting."""
    ...

  def check_vocabulary(self, vocab_size: int) -> None:
    """Raises ValueError or FileNotFoundError for a model whose tokens the order does not know."""
    ...

  def start(self, batch: int, size: int, vocab: int, waits: int | None = None) -> PyTree:
    """Returns the state before the first pass.

    `waits`: the largest number of passes of a block in which a position is open; None: any number.
    """
    ...

  def prepare(self, state: PyTree, view: View) -> tuple[View, PyTree]:
    """Returns the view with the logits that the order makes of the model's, and the new state.

    The view's `logits` and `scored` are both the model's, before temperature and filters, without a
    chance for the mask; the loop processes the returned ones.
    """
    ...

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    """Returns a score per position, the higher the earlier; closed positions may have any."""
    ...


@runtime_checkable
class TransferRule(Protocol):
  """Says how many positions are decided in a pass, and so which."""

  @property
  def exactness(self) -> Exactness:
    """What is kept of the distribution of an order that is exact."""
    ...

  @property
  def reason(self) -> str:
    """Why the rule is not exact; empty where it is."""
    ...

  @property
  def independent(self) -> bool:
    """True if every position is decided by a coin of its own, as in ancestral sampling."""
    ...

  @property
  def advances(self) -> bool:
    """True if every pass with an open position decides at least one."""
    ...

  def for_rows(self, batch: int) -> "TransferRule":
    """Returns the rule with an array [B] for every setting."""
    ...

  def check(self, order: OrderPolicy) -> None:
    """Raises ValueError for an order whose scores the rule cannot use."""
    ...

  def choose(
    self, view: View, candidates: CanvasCandidates, score: Float[Array, "B L"]
  ) -> Bool[Array, "B L"]:
    """Returns the positions to decide, a subset of `view.open`."""
    ...

  def next_rate(self, view: View) -> Float[Array, " B"]:
    """Returns the masking rate after this pass, which is `view.t` of the next one."""
    ...


@runtime_checkable
class ReviseRule(Protocol):
  """Says which decided positions are masked again or edited."""

  @property
  def exactness(self) -> Exactness:
    """What is kept of the distribution without revision."""
    ...

  @property
  def reason(self) -> str:
    """Why the rule is not exact; empty where it is."""
    ...

  @property
  def needs_shadow(self) -> bool:
    """True if a pass must compute `View.shadow`."""
    ...

  @property
  def revises(self) -> bool:
    """True if a decided token may change while its block is in progress."""
    ...

  @property
  def moves(self) -> bool:
    """True if what follows in the block may move, so that nothing given may stand there."""
    ...

  def for_rows(self, batch: int) -> "ReviseRule":
    """Returns the rule with an array [B] for every setting."""
    ...

  def check(self, transfer: TransferRule) -> None:
    """Raises ValueError for a transfer rule that it cannot follow."""
    ...

  def check_vocabulary(self, vocab_size: int) -> None:
    """Raises ValueError for a model without the tokens that the rule needs."""
    ...

  def prepare(self, view: View) -> View:
    """Returns the view with the model's `logits` and `scored`, of which the rule may forbid some.

    It comes before `OrderPolicy.prepare`.
    """
    ...

  def start(self, batch: int, size: int) -> PyTree:
    """Returns the state before the first pass."""
    ...

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    """Returns what happens in this pass to the `chosen` and the decided positions."""
    ...


class StatelessOrder(PerRowRule):
  """Base of orders that carry nothing from pass to pass."""

  reason = ""
  probability = False
  uniform = False
  measures_drift = False

  def check_vocabulary(self, vocab_size: int) -> None:
    pass

  def start(self, batch: int, size: int, vocab: int, waits: int | None = None) -> PyTree:
    return ()

  def prepare(self, state: PyTree, view: View) -> tuple[View, PyTree]:
    return view, state


class AnyOrderTransfer(PerRowRule):
  """Base of transfer rules that take any order, and times as they are planned."""

  reason = ""
  independent = False
  advances = False

  def check(self, order: OrderPolicy) -> None:
    pass

  def next_rate(self, view: View) -> Float[Array, " B"]:
    return view.s


class ProbabilityTransfer(AnyOrderTransfer):
  """Base of transfer rules that compare scores with probabilities."""

  def check(self, order: OrderPolicy) -> None:
    if not order.probability:
      raise ValueError(
        f"{type(self).__name__} compares scores with probabilities, which those of "
        f"{type(order).__name__} are not: use SampledProbability, MaxProbability or TopMargin"
      )


class UniformTransfer(AnyOrderTransfer):
  """Base of transfer rules that are defined for positions in random order."""

  def check(self, order: OrderPolicy) -> None:
    if not order.uniform:
      raise ValueError(
        f"{type(self).__name__} decides positions in uniformly random order, which "
        f"{type(order).__name__} is not: use RandomPositions"
      )


class AnyTransferRevise(PerRowRule):
  """Base of revision rules without shadow entries, which follow any transfer rule."""

  needs_shadow = False
  revises = True
  moves = False

  def check(self, transfer: TransferRule) -> None:
    pass

  def check_vocabulary(self, vocab_size: int) -> None:
    pass

  def prepare(self, view: View) -> View:
    return view


def only_written(chosen: Bool[Array, "B L"]) -> Revision:
  """Returns the decisions of a pass that revises nothing."""
  none = jnp.zeros_like(chosen)
  return Revision(written=chosen, remasked=none, edited=none, more=none[:, 0])
