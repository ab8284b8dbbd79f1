"""Ancestral sampling of uniform noise: every position by its own posterior, pass by pass."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.noising.forward import Noise, NoiseAt, UniformNoise
from mtjax.diffusion.rule import PerRow, PerRowRule, Range, rule, static_field
from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.uniform.rule import CanvasAfter
from mtjax.diffusion.view import View
from mtjax.types import Exactness


def reverse_probs(
  predicted: Float[Array, "*T V"], noisy: Int[Array, "*T"], now: NoiseAt, after: NoiseAt
) -> Float[Array, "*T V+1"]:
  """Returns q(z_s | z_t, x') for s < t: the distribution of a token after a reverse step.

  q(z_s | z_t, x') = q(z_t | z_s) q_s(z_s | x') / q_t(z_t | x') (GIDD 2503.04482, sec. 3; of uniform
  noise it is UDLM's posterior, 2412.10193, sec. 4). `predicted` is x', the distribution of the
  clean token without what z_t itself says of it; `now` and `after` are the noise at t and s. Ids of
  `noisy` that are V or more are masks, and so is the last of the V + 1 tokens. A z_t that x'
  excludes stays as it is.
  """
  vocab = predicted.shape[-1]
  alpha = now.alpha / after.alpha
  mask, uniform = (
    jnp.maximum(whole - alpha * before, 0.0)
    for whole, before in ((now.mask, after.mask), (now.uniform, after.uniform))
  )
  tokens = after.alpha[..., None] * predicted + after.uniform[..., None] / vocab
  masks = jnp.broadcast_to(after.mask[..., None], (*tokens.shape[:-1], 1)).astype(tokens.dtype)
  same = jax.nn.one_hot(jnp.minimum(noisy, vocab), vocab + 1, dtype=tokens.dtype)
  jump = jnp.where(noisy >= vocab, mask, uniform / vocab)
  joint = jnp.concatenate([tokens, masks], axis=-1) * (jump[..., None] + alpha[..., None] * same)
  total = jnp.sum(joint, axis=-1, keepdims=True)
  return jnp.where(total > 0, joint / jnp.where(total > 0, total, 1.0), same)


def without_own_entry(
  posterior: Float[Array, "*T V"], noisy: Int[Array, "*T"], now: NoiseAt
) -> Float[Array, "*T V"]:
  """Returns the distribution of a token without what its own noisy entry says of it.

  It is p(x | z) / q_t(z | x), normalised (2605.22765). With it, `reverse_probs` is the mean over
  p(x | z) of q(z_s | z_t, x), the step of D3PM (2107.03006, sec. 3).
  """
  vocab = posterior.shape[-1]
  same = jax.nn.one_hot(noisy, vocab, dtype=posterior.dtype)  # of a mask: zeros
  jump = jnp.where(noisy >= vocab, now.mask, now.uniform / vocab)[..., None]
  likelihood = jump + now.alpha[..., None] * same
  weight = jnp.where(likelihood > 0, posterior / jnp.where(likelihood > 0, likelihood, 1.0), 0.0)
  total = jnp.sum(weight, axis=-1, keepdims=True)
  return jnp.where(total > 0, weight / jnp.where(total > 0, total, 1.0), posterior)


@rule
class NoisePosterior(PerRowRule):
  """A pass samples z_s of every position from `reverse_probs` of what the network predicts.

  Pass n of N goes from t = 1 - n / N to s = 1 - (n + 1) / N. This is the sampler of networks that
  were trained with the bound of `noise` (`uniform_diffusion`), whose predictions leave out what an
  entry itself says. At s = 0 no noise is left; no canvas ends before. `temperature`: that of the
  predictions.
  """

  temperature: PerRow = 1.0
  noise: Noise = static_field(UniformNoise())
  ranges: ClassVar[dict[str, Range]] = {"temperature": Range(low=0.0, open_low=True)}
  exactness = Exactness.APPROXIMATE
  reason = (
    "the positions of one pass are sampled independently of each other; each keeps its marginal "
    "distribution in time where predictions are exact"
  )
  greedy_text = False

  def mask_share(self) -> Float[Array, ""]:
    return jnp.asarray(self.noise.at(jnp.ones(())).mask)

  def temperature_at(self, step: Int[Array, " B"], steps: Int[Array, " B"]) -> Float[Array, " B"]:
    return jnp.broadcast_to(self.temperature, step.shape)

  def predicted(self, view: View, now: NoiseAt) -> Float[Array, "B W V"]:
    """Returns x' of `reverse_probs`."""
    return jax.nn.softmax(view.logits)

  def logits(self, view: View) -> Float[Array, "B W V+1"]:
    remaining = view.steps - view.step
    now, after = (self._at(n[:, None] / view.steps[:, None]) for n in (remaining, remaining - 1))
    probs = reverse_probs(self.predicted(view, now), view.token, now, after)
    # The gradient of log at 0 would be NaN, although nobody samples there.
    return jnp.where(probs > 0, jnp.log(jnp.where(probs > 0, probs, 1.0)), -jnp.inf)

  def revise(self, view: View, network: UniformNetwork, sampled: Int[Array, "B W"]) -> CanvasAfter:
    return CanvasAfter(sampled, jnp.ones_like(sampled, bool))

  def done(self, view: View, unchanged: Int[Array, " B"]) -> Bool[Array, " B"]:
    return jnp.zeros_like(unchanged, bool)

  def _at(self, t: Float[Array, "B 1"]) -> NoiseAt:
    at = self.noise.at(t)
    # A schedule may leave noise at time 0, which no text may have.
    return at._replace(
      alpha=jnp.where(t > 0, at.alpha, 1.0),
      mask=jnp.where(t > 0, at.mask, 0.0),
      uniform=jnp.where(t > 0, at.uniform, 0.0),
    )


@rule
class MixturePosterior(NoisePosterior):
  """The same for a network that predicts the posterior of the clean token given the whole canvas.

  Such are networks that were trained with the cross-entropy of every entry, as DiffusionGemma's.
  """

  def predicted(self, view: View, now: NoiseAt) -> Float[Array, "B W V"]:
    return without_own_entry(jax.nn.softmax(view.logits), view.token, now)
