"""The Protocol of objectives, the sums they return, and the cross-entropy that most of them use."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtjax.models import Params

Batch = Mapping[str, Array]  # tokens, targets, segment, position: int [B, L]; weight: float [B, L]


class Total(NamedTuple):
  """A weighted sum and its weight: totals add up over parts of a batch, means do not."""

  sum: Float[Array, ""]
  weight: Float[Array, ""]
  parts: dict[str, Float[Array, ""]] | None = None  # other sums with this weight, for reports


@runtime_checkable
class Objective(Protocol):
  """The loss that a step minimises, in two halves: every random choice first, then sums over rows.

  Both are traced, in the one program of a step.
  """

  def prepare(self, batch: Batch, key: PRNGKeyArray, step: Int[Array, ""], /) -> Batch:
    """Returns the batch with what was chosen for it, arrays of as many rows as the batch has.

    It is called once per step, with the rows of all parts and all devices, so what it stratifies is
    stratified over all of them, and the number of parts changes no choice.
    """
    ...

  def total(self, params: Params, batch: Batch, /) -> Total:
    """Returns the sum and the weight of some rows of a prepared batch. Nothing in it is random."""
    ...


def _as_it_is(batch: Batch, key: PRNGKeyArray, step: Int[Array, ""]) -> Batch:
  del key, step  # nothing is left to chance
  return batch


@dataclasses.dataclass(frozen=True)
class Loss:
  """An `Objective` of two functions; without `prepare` it leaves nothing to chance."""

  total: Callable[[Params, Batch], Total]
  prepare: Callable[[Batch, PRNGKeyArray, Int[Array, ""]], Batch] = _as_it_is

  def __call__(
    self, params: Params, batch: Batch, key: PRNGKeyArray, step: Int[Array, ""]
  ) -> Total:
    """Both halves, of a batch in one part."""
    return self.total(params, self.prepare(batch, key, step))


@dataclasses.dataclass(frozen=True)
class NoSettings:
  """The settings of an objective that has none."""


def next_token(
  logits: Float[Array, "B L V"], targets: Int[Array, "B L"], weight: Float[Array, "B L"]
) -> Total:
  """Returns the cross-entropy, in nats, of targets[b, i] under softmax(logits[b, i]), in float32.

  An entry of weight 0 does not count, whatever its target is. The mean over a packed batch is
  sum / weight: a long document weighs more than a short one, as in one long text.
  """
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  nats = jax.nn.logsumexp(logits, axis=-1) - chosen
  weight = weight.astype(jnp.float32)
  return Total(jnp.sum(jnp.where(weight > 0, nats * weight, 0.0)), jnp.sum(weight))
