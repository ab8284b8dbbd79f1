"""The log-probabilities of a trace under any parameters: what policy gradients are made of."""

import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from mtjax.diffusion.denoising.caches import CachePolicy
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.traces import Trace, TracedPass
from mtjax.models import Params


def replay(
  network: MaskedNetwork, params: Params, trace: Trace, *, cache: CachePolicy | None = None
) -> Float[Array, "P B W"]:
  """Returns log p(token) of all that the passes of a trace wrote or edited, and 0 elsewhere.

  Every pass is computed again, over the canvas that it saw, and made to decide what it decided.
  With the sampler's parameters the result is `trace.passes.log_prob`; with others it is what
  importance weights and policy gradients need. It is differentiable in `params`:

    log pi(tau) = sum over passes n and positions i decided or edited in n of
                  log p(x_i | canvas_n),          grad J = E[A(tau) grad log pi(tau)]

  which is `replay(...).sum((0, 2))` per row, with A an advantage that is constant in `params`. Each
  pass keeps the memory of one for its gradient: others are computed again (jax.checkpoint).

  log pi is the log-probability of the trajectory if which positions a pass revises depends neither
  on the sampled tokens nor on `params`: random or fixed orders, with KeepDecided or ReMDM (but
  RemdmConf). For orders and thresholds of the model's probabilities the set is a step function of
  them, whose gradient is 0 almost everywhere; where the set depends on the sampled tokens
  (SampledProbability, EditTokens, Wino), log pi lacks the probability of the tokens that were
  sampled and not kept: APPROXIMATE as a density of trajectories, exact per token.

  The network is the trace's in its conventions, and its guidance, filters and temperature hold.
  `cache`: what the passes of `denoise` compute, None: as they did, stale keys included. Traces of
  several lengths compile once if they are `padded` to one.
  """
  changes = {} if cache is None else dict(cache=cache)
  program = dataclasses.replace(trace.program, network=network, **changes)
  return _replay(program, params, trace.settings, trace.passes)


@functools.partial(jax.jit, static_argnames="program")
def _replay(
  program: Any, params: Params, settings: PyTree, passes: TracedPass
) -> Float[Array, "P B W"]:
  inputs = (params, *settings)

  @jax.checkpoint
  def step(state, seen):
    return program.follow(inputs, state, seen)

  return jax.lax.scan(step, program.begin(inputs), passes)[1]
