"""The protocol of machines: loops of their own over the blocks of a block-causal network."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.rounds import run
from mtjax.sampling.logits import Rules
from mtjax.types import Exactness

# (logits, sampling rules) -> the logits that confidences are computed from (`View.scored`).
Score = Callable[[Array, Rules], Array]


@runtime_checkable
class BlockMachine(Protocol):
  """Says which blocks a pass works on and what it decides there, in place of the rules of a pass.

  A pytree of settings, one number per row, and of sizes (`mtjax.diffusion.rule`).
  """

  @property
  def exactness(self) -> Exactness:
    """What is kept of the distribution of one position per pass."""
    ...

  @property
  def reason(self) -> str:
    """Why the machine is not exact; empty where it is."""
    ...

  @property
  def needs(self) -> str:
    """The kind of model that it runs on, in words that follow "give"."""
    ...

  def for_rows(self, batch: int) -> "BlockMachine":
    """Returns the machine with an array [B] for every setting."""
    ...

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network that the machine cannot run on."""
    ...

  def program(self, network: MaskedNetwork, score: Score, num_blocks: int) -> run.Program:
    """Returns the rounds, whose inputs are (params, job, machine), for canvases of so many blocks.

    Its states are `mtjax.diffusion.denoising.result.Canvases`. Each round returns a `TracedPass` to
    observe.
    """
    ...

  def counters(self, state: Any) -> dict[str, int]:
    """Returns what else there is to count of a run, from its last state."""
    ...


def check_blocks(network: MaskedNetwork, what: str) -> None:
  """Raises ValueError for a network without blocks."""
  if not network.block_length:
    raise ValueError(
      f"{what} needs a block-causal network, in which no block sees a later one "
      "(MaskedNetwork.block_length)"
    )
