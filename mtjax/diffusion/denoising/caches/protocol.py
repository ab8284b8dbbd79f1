"""The protocol of cache policies: which entries a pass of a denoising loop computes."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.soft_inputs import Soften
from mtjax.diffusion.denoising.state import Job, Window
from mtjax.models import Params
from mtjax.types import Exactness


class Pass(NamedTuple):
  """What a pass is to compute: the logits of the window's positions, over the whole canvas."""

  token: Int[Array, "B S"]
  window: Window
  fresh: Bool[Array, " B"]  # rows that begin a block
  active: Bool[Array, " B"]  # others need no logits
  block: Int[Array, " B"]
  soften: Soften | None = None  # only for a `VectorCachePolicy`
  # Positions of the window that have a shadow entry, which only `with_shadow` reads; None: all that
  # exist.
  shadowed: Bool[Array, "B W"] | None = None


@runtime_checkable
class CachePolicy(Protocol):
  """Says what a pass computes, and what it takes from earlier passes. Frozen and hashable."""

  @property
  def exactness(self) -> Exactness:
    """LOSSLESS if logits are those of the whole canvas computed at once, else APPROXIMATE."""
    ...

  @property
  def reason(self) -> str:
    """Why the logits are approximate; empty where they are not."""
    ...

  @property
  def needs_final(self) -> bool:
    """True if its keys would be wrong after a decided token has changed within its block."""
    ...

  @property
  def reads_layers(self) -> bool:
    """True if it looks between the layers, which one scan over all of them does not show."""
    ...

  def check(self, network: MaskedNetwork) -> None:
    """Raises ValueError for a network that the cache cannot serve."""
    ...

  def start(self, network: MaskedNetwork, params: Params, job: Job) -> PyTree:
    """Returns the cache before the first pass, with prompts read as far as they can be."""
    ...

  def logits(
    self, network: MaskedNetwork, params: Params, job: Job, cache: PyTree, now: Pass
  ) -> tuple[Float[Array, "B W V"], PyTree]:
    """Returns the logits of the window's positions, and the cache after the pass."""
    ...


@runtime_checkable
class ShadowCachePolicy(CachePolicy, Protocol):
  """A cache policy whose passes may have shadow entries (`MaskedNetwork.with_shadow`)."""

  def logits_with_shadow(
    self, network: MaskedNetwork, params: Params, job: Job, cache: PyTree, now: Pass
  ) -> tuple[Float[Array, "B W V"], Float[Array, "B W V"], PyTree]:
    """Returns the logits of the window's entries, those of their shadow entries, and the cache."""
    ...


@runtime_checkable
class VectorCachePolicy(CachePolicy, Protocol):
  """A cache policy whose passes may have soft inputs (`Pass.soften`)."""

  @property
  def takes_vectors(self) -> bool:
    """True."""
    ...
