"""What a pass over blocks in flight computes: the whole canvas, or the blocks over exact keys."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.diffusion.denoising.caches.exact_blocks import ExactBlocks, FinishedBlocks
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.soft_inputs import Soften
from mtjax.diffusion.denoising.state import Job, Window
from mtjax.models import Params


@runtime_checkable
class FlightPasses(Protocol):
  """Frozen and hashable."""

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network that the passes cannot serve."""
    ...

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> PyTree:
    """Returns what is kept before the first pass."""
    ...

  def logits(
    self,
    network: MaskedNetwork,
    params: Params,
    token: Int[Array, "B S"],
    kept: PyTree,
    window: Window,
    end: Int[Array, " B"],
    final: Bool[Array, "B K"],
    soften: Soften | None,
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    """Returns the logits of the window's positions, and what is kept after the pass.

    `end`: entries from here on do not exist yet. `final`: blocks of the window that do not change
    any more.
    """
    ...

  def leaving(self, before: Bool[Array, "B N"], after: Bool[Array, "B N"]) -> Bool[Array, "B N"]:
    """Returns the blocks that the window need not hold after a pass.

    They are among those that were final before the pass, or are after it.
    """
    ...


@dataclasses.dataclass(frozen=True)
class WholeCanvas:
  """Computes the canvas as far as blocks have begun. A block leaves as soon as it is final."""

  def check(self, network: MaskedNetwork) -> None:
    pass

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> tuple[()]:
    return ()

  def logits(
    self,
    network: MaskedNetwork,
    params: Params,
    token: Int[Array, "B S"],
    kept: tuple[()],
    window: Window,
    end: Int[Array, " B"],
    final: Bool[Array, "B K"],
    soften: Soften | None,
  ) -> tuple[Float[Array, "B W V"], tuple[()]]:
    frontier = network.canvas(token, end)
    frontier = frontier if soften is None else soften(frontier)
    output = network.model.forward(params, frontier, None, network.sources(window.index))
    return network.logits(output), kept

  def leaving(self, before: Bool[Array, "B N"], after: Bool[Array, "B N"]) -> Bool[Array, "B N"]:
    return after


@dataclasses.dataclass(frozen=True)
class OverFinalBlocks:
  """Computes the blocks of the window over the exact keys of those before it.

  A final block is computed once more as it became, in the window, and its keys are kept from there:
  what it saw is final too, as final blocks leave in their order. So it holds its place in the
  window for one pass more, and no pass is spent on it alone. With shifted logits the last entry of
  the blocks that leave predicts the window's next first position, as in `ExactBlocks`.
  """

  def check(self, network: MaskedNetwork) -> None:
    ExactBlocks().check(network)

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> FinishedBlocks:
    return ExactBlocks().start(network, params, job)

  def logits(
    self,
    network: MaskedNetwork,
    params: Params,
    token: Int[Array, "B S"],
    kept: FinishedBlocks,
    window: Window,
    end: Int[Array, " B"],
    final: Bool[Array, "B K"],
    soften: Soften | None,
  ) -> tuple[Float[Array, "B W V"], FinishedBlocks]:
    width = window.index.shape[1]
    every = jnp.broadcast_to(jnp.arange(width), window.index.shape)
    here = jnp.take_along_axis(token, window.index, axis=1)
    frontier = frontier_lib.block_causal(here, every // network.block_length)
    hi = jnp.where(window.inside[:, None, :], frontier.hi, frontier.lo)
    frontier = frontier.replace(position=window.index, hi=hi)
    frontier = frontier if soften is None else soften(frontier)
    # The sources of the window's positions, and of the first one after it.
    following = network.sources(jnp.arange(width + network.shifted))
    rows = jnp.broadcast_to(following, (every.shape[0], following.size))
    output = network.model.forward(params, frontier, kept.kv, rows)
    logits = kept.first(network.logits(output), window)
    blocks = jnp.sum(jnp.cumprod(final.astype(jnp.int32), axis=1), axis=1, dtype=jnp.int32)
    count = blocks * network.block_length
    kv = kept.kv.commit(output.kv, frontier.position, every, count)
    if kept.following is None:
      return logits, FinishedBlocks(kv, None)
    after = jnp.take_along_axis(logits, count[:, None, None], axis=1)[:, 0]
    return logits[:, :width], FinishedBlocks(kv, after)

  def leaving(self, before: Bool[Array, "B N"], after: Bool[Array, "B N"]) -> Bool[Array, "B N"]:
    return before
