"""CreditDecoding: tokens that were the most probable in earlier passes get credit."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import SHARE, PerRow, Range, rule
from mtjax.diffusion.view import View
from mtjax.sampling.categorical import argmax
from mtjax.sampling.statistics import max_probability
from mtjax.types import Exactness


@rule
class Credit(StatelessOrder):
  """Scores are p(candidate) after credit is added to the logits (dInfer's credit decoder).

  In every pass C <- decay C, then C[i, argmax_i] += p_max^gamma at open positions; logits become
  l + alpha log(1 + C), for candidates and confidences alike. A block begins with C = 0. The
  defaults are dInfer's. The state is [B, L, V] numbers, as large as the logits.

  Credit is added before the temperature and the filters, to what the model says: a token whose
  credit grows may come back into a nucleus that excluded it, and a greedy row's candidate is the
  argmax with credit, as in dInfer. p_max is the model's own, without credit.
  """

  alpha: PerRow = 0.7
  gamma: PerRow = 0.2
  decay: PerRow = 0.8
  ranges: ClassVar[dict[str, Range]] = {
    "alpha": Range(low=0.0),
    "gamma": Range(low=0.0),
    "decay": SHARE,
  }
  exactness = Exactness.APPROXIMATE
  reason = "credit of earlier passes changes the model's distribution at a position"
  probability = True

  def start(self, batch: int, size: int, vocab: int) -> Float[Array, "B L V"]:
    return jnp.zeros((batch, size, vocab), jnp.float32)

  def prepare(self, state: Float[Array, "B L V"], view: View) -> tuple[View, Float[Array, "B L V"]]:
    best = argmax(view.logits)
    p_max = jnp.exp(max_probability(view.logits))
    earned = jnp.where(view.open, p_max ** self.gamma[:, None], 0.0)
    kept = jnp.where((view.step > 0)[:, None, None], self.decay[:, None, None] * state, 0.0)
    there = jnp.arange(state.shape[-1]) == best[..., None]
    credit = kept + jnp.where(there, earned[..., None], 0.0).astype(state.dtype)
    logits = view.logits + self.alpha[:, None, None] * jnp.log1p(credit)
    return view.replace(logits=logits, scored=logits), credit

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return jnp.exp(candidates.confidence)
