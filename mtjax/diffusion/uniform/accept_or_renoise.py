"""DiffusionGemma's rule: sure positions take their sample, all others become noise again."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.candidates import CanvasCandidates, candidates_of
from mtjax.diffusion.order.low_entropy import LowEntropy
from mtjax.diffusion.random_numbers import Stream, position_keys
from mtjax.diffusion.rule import PerRow, PerRowRule, Range, rule
from mtjax.diffusion.transfer.entropy_bound import EntropyBound
from mtjax.diffusion.uniform.network import UniformNetwork, uniform_tokens
from mtjax.diffusion.uniform.rule import CanvasAfter
from mtjax.diffusion.view import View
from mtjax.sampling.statistics import negative_entropy
from mtjax.types import Exactness


@rule
class AcceptOrRenoise(PerRowRule):
  """A pass samples every position, keeps what `EntropyBound` accepts, and renoises the rest.

  (DiffusionGemma, as transformers has it.) Acceptance begins anew in each pass: a position that was
  accepted before and is not now becomes a uniform token, so all tokens may change until the canvas
  ends. Its text is the most probable token of every position, not the sampled one.

  t_max, t_min: the temperature of n passes that remain, this one among them, of N is
    t_min + (t_max - t_min) n / N. It is that of tokens, of entropies and of self-conditioning.
  gamma: the bound of `EntropyBound`, in nats.
  stable_passes, max_entropy: a canvas ends before its last pass if its text was the same in so many
    passes before, and the mean entropy of its positions is below `max_entropy` nats (0: never).
  """

  t_max: PerRow = 0.8
  t_min: PerRow = 0.4
  gamma: PerRow = 0.1
  stable_passes: PerRow = 1
  max_entropy: PerRow = 0.005
  ranges: ClassVar[dict[str, Range]] = {
    "t_max": Range(low=0.0, open_low=True),
    "t_min": Range(low=0.0),
    "gamma": Range(low=0.0),
    "stable_passes": Range(low=0.0),
    "max_entropy": Range(low=0.0),
  }
  exactness = Exactness.APPROXIMATE
  reason = (
    "the tokens of one pass are sampled independently of each other, at a temperature below 1, and "
    "the text is the most probable token of every position"
  )
  greedy_text = True

  def check_values(self, values: Mapping[str, Any]) -> None:
    """Raises ValueError too for t_min above t_max, and for parts of a pass."""
    super().check_values(values)
    if np.any(np.asarray(values["t_min"]) > np.asarray(values["t_max"])):
      raise ValueError(f"t_min must be at most t_max, got {values['t_min']} and {values['t_max']}")
    if np.any(np.asarray(values["stable_passes"]) % 1):
      raise ValueError(f"stable_passes must be a whole number, got {values['stable_passes']}")

  def mask_share(self) -> Float[Array, ""]:
    return jnp.zeros(())

  def temperature_at(self, step: Int[Array, " B"], steps: Int[Array, " B"]) -> Float[Array, " B"]:
    remaining = (steps - step).astype(jnp.float32) / steps
    return self.t_min + (self.t_max - self.t_min) * remaining

  def accepted(self, view: View, candidates: CanvasCandidates) -> Bool[Array, "B W"]:
    """Returns the positions that keep the token that this pass has sampled."""
    score = LowEntropy().score(view, candidates)
    return EntropyBound(self.gamma).choose(view, candidates, score)

  def logits(self, view: View) -> Float[Array, "B W V"]:
    return view.logits

  def revise(self, view: View, network: UniformNetwork, sampled: Int[Array, "B W"]) -> CanvasAfter:
    accepted = self.accepted(view, candidates_of(view, sampled))
    noise = uniform_tokens(position_keys(view, Stream.REVISE), network.model.config.vocab_size)
    return CanvasAfter(jnp.where(accepted, sampled, noise), accepted)

  def done(self, view: View, unchanged: Int[Array, " B"]) -> Bool[Array, " B"]:
    entropy = jnp.mean(-negative_entropy(view.scored), axis=1)
    return (unchanged >= self.stable_passes) & (entropy < self.max_entropy)
