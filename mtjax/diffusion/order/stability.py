"""Positions by the probability of the sampled token, and how far distributions move (KLASS)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.order.sampled_probability import SampledProbability
from mtjax.diffusion.protocols import StatelessOrder
from mtjax.diffusion.rule import rule, size_field
from mtjax.diffusion.view import View
from mtjax.types import Exactness

State = tuple[Float[Array, "B L V"], Float[Array, "B L C"]]


@rule
class Stability(StatelessOrder):
  """Scores are p(candidate) under `View.scored`, and `View.drift` is measured for `Klass`.

  The drift of a position is the largest KL(p_n || p_{n-1}) of the last `changes` pairs of passes
  over its block, in nats (KLASS 2511.05664, section 4; its code has `history_length` 2). p_n is
  what the model says in pass n, before temperature and filters. It is infinite as long as the block
  has had fewer pairs: with 2 changes the third pass is the first one that may find it small.

  The published program measures whole canvases, and so has the drift of a block's positions from
  passes before the block began; with one block it is the same. At a temperature above 0, which is
  not its default, its p_n is the softmax of what `add_gumbel_noise` makes of the logits. The noise
  of sampling is then part of its drift and of its confidence, and here it is part of neither.

  The state is [B, L, V] numbers, as large as the logits.
  """

  changes: int = size_field(default=2)
  exactness = Exactness.APPROXIMATE
  reason = SampledProbability.reason
  probability = True
  measures_drift = True

  def start(self, batch: int, size: int, vocab: int, waits: int | None = None) -> State:
    last = jnp.zeros((batch, size, vocab), jnp.float32)
    return last, jnp.full((batch, size, self.changes), jnp.inf, jnp.float32)

  def prepare(self, state: State, view: View) -> tuple[View, State]:
    before, moved = state
    log_p = jax.nn.log_softmax(view.logits)
    p = jnp.exp(log_p)
    divergence = jnp.sum(jnp.where(p > 0, p * (log_p - before), 0.0), axis=-1, keepdims=True)
    moved = jnp.concatenate([moved[..., 1:], divergence], axis=-1)
    moved = jnp.where((view.step > 0)[:, None, None], moved, jnp.inf)
    return view.replace(drift=jnp.max(moved, axis=-1)), (log_p, moved)

  def score(self, view: View, candidates: CanvasCandidates) -> Float[Array, "B L"]:
    return jnp.exp(candidates.confidence)
