"""CreditDecoding: tokens that were the most probable in earlier passes get credit."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import SHARE, PerRow, Range, rule
from mtjax.diffusion.view import View
from mtjax.sampling.categorical import argmax
from mtjax.sampling.statistics import max_probability
from mtjax.types import Exactness


class CreditedTokens(NamedTuple):
  """The tokens of each position that have credit: the argmaxes of the passes it was open in."""

  token: Int[Array, "B L P"]  # different ones, from the left; -1: none yet
  credit: Float[Array, "B L P"]  # 0 where there is no token


@rule
class Credit(StatelessOrder):
  """Scores are p(candidate) after credit is added to the logits (dInfer's credit decoder).

  In every pass C <- decay C, then C[i, argmax_i] += p_max^gamma at open positions; logits become
  l + alpha log(1 + C), for candidates and confidences alike. A block begins with C = 0. The
  defaults are dInfer's.

  C is 0 at all tokens but the argmaxes of the passes that a position was open in. Where there are
  fewer such passes than tokens in the vocabulary, the state has these tokens alone, and the logits
  of others are not touched. Otherwise it is C itself, as large as the logits: after a rule that may
  mask a position again, or one whose passes may decide nothing.

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

  def start(
    self, batch: int, size: int, vocab: int, waits: int | None = None
  ) -> CreditedTokens | Float[Array, "B L V"]:
    if waits is None or waits >= vocab:
      return jnp.zeros((batch, size, vocab), jnp.float32)
    shape = (batch, size, waits)
    return CreditedTokens(jnp.full(shape, -1, jnp.int32), jnp.zeros(shape, jnp.float32))

  def prepare(
    self, state: CreditedTokens | Float[Array, "B L V"], view: View
  ) -> tuple[View, CreditedTokens | Float[Array, "B L V"]]:
    best = argmax(view.logits)
    p_max = jnp.exp(max_probability(view.logits))
    earned = jnp.where(view.open, p_max ** self.gamma[:, None], 0.0)
    if isinstance(state, CreditedTokens):
      state = self._of_tokens(state, view, best, earned)
      logits = _add_at(view.logits, state.token, self._bonus(state.credit))
    else:
      there = jnp.arange(state.shape[-1]) == best[..., None]
      state = self._kept(state, view) + jnp.where(there, earned[..., None], 0.0).astype(state.dtype)
      logits = view.logits + self._bonus(state)
    return view.replace(logits=logits, scored=logits), state

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return jnp.exp(candidates.confidence)

  def _of_tokens(self, state: CreditedTokens, view: View, best, earned) -> CreditedTokens:
    """Returns the credit after a pass in which the `best` tokens have `earned` some."""
    token = jnp.where((view.step > 0)[:, None, None], state.token, -1)
    known = token == best[..., None]
    unused = jnp.arange(token.shape[-1]) == jnp.sum(token >= 0, axis=-1, keepdims=True)
    there = jnp.where(jnp.any(known, axis=-1, keepdims=True), known, unused)
    there &= view.open[..., None]
    credit = self._kept(state.credit, view) + jnp.where(there, earned[..., None], 0.0)
    return CreditedTokens(jnp.where(there, best[..., None], token), credit)

  def _kept(self, credit, view: View):
    return jnp.where((view.step > 0)[:, None, None], self.decay[:, None, None] * credit, 0.0)

  def _bonus(self, credit):
    return self.alpha[:, None, None] * jnp.log1p(credit)


def _add_at(
  logits: Float[Array, "B L V"], token: Int[Array, "B L P"], bonus: Float[Array, "B L P"]
) -> Float[Array, "B L V"]:
  """Returns logits with the bonus of each token; tokens of -1 change nothing."""

  def add(logits, token, bonus):
    return logits.at[token].add(bonus, mode="drop", wrap_negative_indices=False)

  return jax.vmap(jax.vmap(add))(logits, token, bonus.astype(logits.dtype))
