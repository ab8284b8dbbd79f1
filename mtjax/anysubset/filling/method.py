"""What every way of filling a canvas provides."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from mtjax.anysubset.filling.passes import Phase
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.network import Network
from mtjax.models import Params
from mtjax.types import Exactness


@runtime_checkable
class FillMethod(Protocol):
  """How the entries of a canvas are decided. Frozen and hashable: static in the one program.

  `start` and `step` are traced; neither compiles anything of its own.
  """

  @property
  def decides_order(self) -> bool:
    """Whether the method decides the order as it fills; otherwise it is given one."""
    ...

  @property
  def exactness(self) -> Exactness:
    """What is kept of the model's joint distribution in the given order."""
    ...

  def check(self, config: Any) -> None:
    """Raises ValueError, before anything is compiled, for a model that it cannot fill with."""
    ...

  def start(self, model: Network, params: Params, problem: Problem) -> FillState:
    """Returns the state after the first pass: context committed, the first entries decided."""
    ...

  def step(self, model: Network, params: Params, problem: Problem, state: FillState) -> FillState:
    """Returns the state after one round, which decides at least one entry of every active row."""
    ...


@runtime_checkable
class Windowed(Protocol):
  """A method whose rounds are `Phase`s of `mtjax.anysubset.filling.step`: what those need of it.

  `draft_logits` is asked only where no pass made the laws (`Phase.ahead`, `Phase.recalled`).
  """

  @property
  def first(self) -> Phase:
    """Returns the phase of the first pass, which reads the context."""
    ...

  @property
  def round(self) -> tuple[Phase, ...]:
    """Returns the phases of every later round, one for each of its passes."""
    ...

  @property
  def verifier(self) -> str:
    """The name of the rule in `mtjax.verify.VERIFIERS` that keeps drafts."""
    ...

  def draft_logits(
    self, problem: Problem, state: FillState, drafted: Int[Array, "B J"], vocab: int
  ) -> Float[Array, "B V"]:
    """Logits (processed) of the law that the draft after the J drafted ones is drawn from."""
    ...
