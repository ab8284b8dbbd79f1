"""Estimators of a text's likelihood side by side, behind one Protocol.

Published figures of one model differ by a factor of two between estimators (2.41 and 1.15 bits per
byte: openai/parameter-golf, pull request 1106). Two estimates are comparable only if both bound, or
are, the density of the same process; `Likelihood.of` says what an estimator is about.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from mtjax.diffusion.likelihood import subsets
from mtjax.diffusion.likelihood.conditionals import Conditionals
from mtjax.diffusion.likelihood.sampled import (
  Block,
  order_average,
  pseudo_likelihood,
  sampled_bound,
  sampled_discrete_bound,
)
from mtjax.diffusion.noising.schedules import NoiseSchedule, Times

BOUND, DENSITY, NEITHER = "bound", "density", "neither"


class Likelihood(NamedTuple):
  """An estimate of log p of a text, in nats."""

  nats: float
  error: float  # standard error of what was sampled; 0 where nothing was


@runtime_checkable
class LikelihoodEstimator(Protocol):
  """Estimates log p of a text from the conditionals of its maskings."""

  @property
  def kind(self) -> str:
    """What the mean estimate is: a "bound" from below of log p, its "density", or "neither"."""
    ...

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    """Returns the estimate of a text of `size` tokens; `block` is as in `sampled`.

    Raises ValueError for a text that the estimator cannot take.
    """
    ...


@dataclasses.dataclass(frozen=True)
class MonteCarlo:
  """The bound of continuous time, from maskings of a random number of tokens or at random times."""

  samples: int = 64
  seed: int = 0
  schedule: NoiseSchedule | None = None
  kind = BOUND

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    samples, seed, schedule = self.samples, self.seed, self.schedule
    return Likelihood(
      *sampled_bound(conditionals, size, samples=samples, seed=seed, schedule=schedule, block=block)
    )


@dataclasses.dataclass(frozen=True)
class DiscreteTime:
  """The bound of a process of `steps` steps, which decides several tokens at once."""

  steps: int = 64
  samples: int = 64
  seed: int = 0
  schedule: NoiseSchedule = NoiseSchedule()
  kind = BOUND

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    return Likelihood(
      *sampled_discrete_bound(
        conditionals,
        size,
        steps=self.steps,
        samples=self.samples,
        seed=self.seed,
        schedule=self.schedule,
        block=block,
      )
    )


@dataclasses.dataclass(frozen=True)
class OrderAverage:
  """The mean of log p over random orders, token by token: the same bound as `MonteCarlo`."""

  orders: int = 1
  seed: int = 0
  kind = BOUND

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    found = order_average(conditionals, size, orders=self.orders, seed=self.seed, block=block)
    return Likelihood(*found)


@dataclasses.dataclass(frozen=True)
class ExactOrders:
  """The density of one token at a time in a random order, by all maskings of at most 12 tokens."""

  kind = DENSITY

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    _check_one_block(block)
    return Likelihood(subsets.order_log_density(conditionals, size), 0.0)


@dataclasses.dataclass(frozen=True)
class ExactSteps:
  """The density of ancestral sampling in `steps` steps, by all maskings of at most 12 tokens."""

  steps: int = 64
  schedule: NoiseSchedule = NoiseSchedule()
  kind = DENSITY

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    _check_one_block(block)
    nats = subsets.step_log_density(conditionals, size, self.steps, self.schedule)
    return Likelihood(nats, 0.0)


@dataclasses.dataclass(frozen=True)
class PseudoLikelihood:
  """Each token given all others: no bound, listed because it is published as one."""

  kind = NEITHER

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    return Likelihood(pseudo_likelihood(conditionals, size, block=block), 0.0)


@dataclasses.dataclass(frozen=True)
class Unweighted:
  """The mean over random times of the masked tokens' log p, without the bound's weight.

  No bound, listed because losses are reported so. Where a token costs the same at all times, it is
  half of the bound.
  """

  samples: int = 64
  seed: int = 0
  kind = NEITHER

  def __call__(
    self, conditionals: Conditionals, size: int, *, block: Block | None = None
  ) -> Likelihood:
    return MonteCarlo(self.samples, self.seed, _OneWeight())(conditionals, size, block=block)


class _OneWeight(NoiseSchedule):
  """The linear schedule, all of whose masked tokens count alike."""

  def weight(self, t: Times) -> Times:
    return jnp.ones_like(t)


def _check_one_block(block: Block | None) -> None:
  if block is not None and max(block) > 0:
    raise ValueError(
      "the exact density is of one block: add those of a text's blocks, each with its conditionals"
    )


def by_name(
  names: Sequence[str], *, samples: int = 64, steps: int = 64
) -> dict[str, LikelihoodEstimator]:
  """Returns estimators that take texts of any length, by name.

  `samples` maskings of a text each; order_average has two orders, which take as many maskings as
  the text, or its longest block, has tokens, and so has pseudo. Raises ValueError for unknown
  names, and for none.
  """
  known: dict[str, LikelihoodEstimator] = {
    "monte_carlo": MonteCarlo(samples),
    "discrete_time": DiscreteTime(steps, samples),
    "order_average": OrderAverage(2),
    "pseudo": PseudoLikelihood(),
    "unweighted": Unweighted(samples),
  }
  unknown = [name for name in names if name not in known]
  if unknown or not names:
    raise ValueError(f"estimators must be among {', '.join(known)}, got {unknown or 'none'}")
  return {name: known[name] for name in names}
