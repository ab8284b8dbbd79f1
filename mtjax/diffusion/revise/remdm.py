"""ReMDM (2503.00307): decided positions are masked again with a probability sigma.

With alpha = 1 - rate, a decided position is masked again with probability sigma, and a masked one
decided with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t). Then a position is decided
at s with probability alpha_s for every sigma, as without revision. The probabilities
are valid if 0 <= sigma <= sigma_max = min(1, (1 - alpha_s) / alpha_t), and negative beyond.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import AnyTransferRevise, TransferRule, only_written
from mtjax.diffusion.random_numbers import Stream, uniform
from mtjax.diffusion.rule import PROBABILITY, SHARE, PerRow, Range, rule
from mtjax.diffusion.view import Revision, View
from mtjax.types import Exactness


def max_sigma(t: Float[Array, " B"], s: Float[Array, " B"]) -> Float[Array, " B"]:
  """Returns sigma_max = min(1, (1 - alpha_s) / alpha_t) for masking rates t > s."""
  alpha = 1.0 - t
  return jnp.where(alpha > s, s / jnp.where(alpha > s, alpha, 1.0), 1.0)


def unmask_probs(
  t: Float[Array, "B 1"], s: Float[Array, "B 1"], sigma: Float[Array, "B L"]
) -> Float[Array, "B L"]:
  """Returns (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), alpha = 1 - rate; t > 0."""
  # Written with t - s: 1 - s and 1 - t are both near 1 at the end, and their difference is rounded.
  return (t - s + sigma * (1.0 - t)) / t


def check_sigma(sigma: float, t: float, s: float) -> None:
  """Raises ValueError for a sigma that would make probabilities negative."""
  largest = 1.0 if 1.0 - t <= s else s / (1.0 - t)
  if not 0.0 <= sigma <= largest:
    raise ValueError(
      f"sigma must be from 0 to {largest:.6g} between masking rates {t:.6g} and {s:.6g}, beyond "
      f"which probabilities are negative: got {sigma}"
    )


class Remasking(AnyTransferRevise):
  """Base of ReMDM's schedules of sigma.

  They need `Ancestral`, and decide by their own coins in place of its: masked positions must be
  decided with the probability above, whatever their scores are. After a rule that decides a number
  of positions, the share of decided ones would not be alpha_s any more. All planned passes are
  made: a text without masks may have some again.
  """

  exactness = Exactness.APPROXIMATE
  reason = (
    "every position keeps its marginal distribution in time, but the positions of one pass are "
    "revised independently of each other"
  )

  def check(self, transfer: TransferRule) -> None:
    if not transfer.independent:
      raise ValueError(
        f"{type(self).__name__} decides each position by a coin of its own, which "
        f"{type(transfer).__name__} does not: use Ancestral"
      )

  def rates(self, view: View) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Returns the masking rates before and after the pass."""
    return view.t, jnp.where(view.last, 0.0, view.s)

  def sigma(self, state: PyTree, view: View) -> Float[Array, "B L"]:
    """Returns sigma at every position: decided ones are masked again with this probability."""
    raise NotImplementedError

  def start(self, batch: int, size: int) -> PyTree:
    return ()

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    heads = uniform(view, Stream.REVISE) < self.probs(state, view)
    remasked = view.decided & heads
    return only_written(view.open & heads).replace(remasked=remasked, more=~view.last), state

  def probs(self, state: PyTree, view: View) -> Float[Array, "B L"]:
    """Returns the probabilities of deciding a masked position, and of masking a decided one."""
    t, s = (rate[:, None] for rate in self.rates(view))
    sigma = self.sigma(state, view)
    unmask = jnp.where(view.last[:, None], 1.0, unmask_probs(t, s, sigma))
    return jnp.where(view.open, unmask, sigma)


@rule
class RemdmCap(Remasking):
  """sigma = min(eta, sigma_max); published with eta 0.008, nucleus 0.9 and 1024 passes."""

  eta: PerRow = 0.008
  ranges: ClassVar[dict[str, Range]] = {"eta": SHARE}

  def sigma(self, state: PyTree, view: View) -> Float[Array, "B L"]:
    capped = jnp.minimum(self.eta, max_sigma(*self.rates(view)))
    return jnp.broadcast_to(capped[:, None], view.open.shape)


@rule
class RemdmRescale(Remasking):
  """sigma = eta sigma_max; published with eta 0.015. With eta 1 it is the forward-backward step."""

  eta: PerRow = 0.015
  ranges: ClassVar[dict[str, Range]] = {"eta": SHARE}

  def sigma(self, state: PyTree, view: View) -> Float[Array, "B L"]:
    scaled = self.eta * max_sigma(*self.rates(view))
    return jnp.broadcast_to(scaled[:, None], view.open.shape)


@rule
class RemdmConf(Remasking):
  """sigma_i = softmax(-p_i) sigma_max over decided positions, p_i as the token was when decided.

  So tokens that were improbable are the likelier to be masked again. The state is p(token) of
  every position when it was decided, as sampled; 0 where it is masked. Masked positions have weight
  0 in the softmax, and are decided as without revision: their sigma is 0, that of decided ones is
  not, so the share of decided positions falls behind alpha_s by the mean of sigma_i.
  """

  reason = (
    "decided positions have another sigma than masked ones, so the marginal distribution in time "
    "changes as well; the positions of one pass are revised independently of each other"
  )

  def sigma(self, state: PyTree, view: View) -> Float[Array, "B L"]:
    weight = jnp.where(view.decided, jnp.exp(-state), 0.0)
    total = jnp.sum(weight, axis=1, keepdims=True)
    share = weight / jnp.where(total > 0, total, 1.0)
    return share * max_sigma(*self.rates(view))[:, None]

  def start(self, batch: int, size: int) -> Float[Array, "B L"]:
    return jnp.zeros((batch, size), jnp.float32)

  def revise(
    self, state: PyTree, view: View, candidates: CanvasCandidates, chosen: Bool[Array, "B L"]
  ) -> tuple[Revision, PyTree]:
    revision, state = super().revise(state, view, candidates, chosen)
    state = jnp.where(revision.written, jnp.exp(candidates.log_prob).astype(state.dtype), state)
    return revision, jnp.where(revision.remasked, 0.0, state)


@rule
class RemdmLoop(Remasking):
  """Masks as MDLM does down to alpha_on, revises there at a constant rate, and then finishes.

  `View.t` and `s` are the times of a linear schedule. Above t_on the masking rate falls from 1 to
  1 - alpha_on; from t_on to t_off it stays, with sigma = eta; below, it falls to 0. Times and
  alpha_on are the published ones; eta may be at most (1 - alpha_on) / alpha_on. In a pass from one
  part to the next both rates are those of their own times, and sigma is at most sigma_max, so that
  the share of decided positions stays alpha_s; the published code takes both from the part of t.
  """

  eta: PerRow = 0.02
  t_on: PerRow = 0.55
  t_off: PerRow = 0.05
  alpha_on: PerRow = 0.9
  ranges: ClassVar[dict[str, Range]] = {
    "eta": SHARE,
    "t_on": PROBABILITY,
    "t_off": PROBABILITY,
    "alpha_on": PROBABILITY,
  }

  def check_values(self, values: Mapping[str, Any]) -> None:
    super().check_values(values)
    for eta, t_on, t_off, alpha_on in np.broadcast(*(np.asarray(values[n]) for n in self.ranges)):
      if not t_off < t_on < 1.0:
        raise ValueError(f"t_off must be below t_on, and t_on below 1: got {t_off} and {t_on}")
      if alpha_on >= 1.0:
        raise ValueError(f"alpha_on must be below 1, or no position is masked: got {alpha_on}")
      rate = 1.0 - float(alpha_on)
      check_sigma(float(eta), rate, rate)

  def rates(self, view: View) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    on = 1.0 - self.alpha_on

    def rate(time):
      first = 1.0 - (1.0 - time) * self.alpha_on / (1.0 - self.t_on)
      return jnp.where(
        time > self.t_on, first, jnp.where(time <= self.t_off, on * time / self.t_off, on)
      )

    return rate(view.t), jnp.where(view.last, 0.0, rate(view.s))

  def sigma(self, state: PyTree, view: View) -> Float[Array, "B L"]:
    loops = (view.t <= self.t_on) & (view.t > self.t_off)
    capped = jnp.where(loops, jnp.minimum(self.eta, max_sigma(*self.rates(view))), 0.0)
    return jnp.broadcast_to(capped[:, None], view.open.shape)
