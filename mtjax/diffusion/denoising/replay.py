"""The log-probabilities of a trace under any parameters: what policy gradients are made of."""

import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from mtjax.diffusion.denoising.caches import CachePolicy
from mtjax.diffusion.denoising.traces import Trace, Traceable, TracedPass
from mtjax.models import Params


def replay(
  network: Any, params: Params, trace: Trace, *, cache: CachePolicy | None = None
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

  `network` is what the run had, or another of its kind with the same conventions: a MaskedNetwork,
  a `UniformNetwork`, or the Model of an any-subset model. Guidance, filters, temperature and
  constraint of the run hold. `cache`: what the passes of `denoise` compute, None: as they did,
  stale keys included. Traces of several lengths compile once if they are `padded` to one.

  Of uniform canvases what is written is what each pass kept of its samples, and what is noise again
  counts nothing. A canvas that tells the next pass what it predicts (self-conditioning) does so
  again, under `params`. The text of `AcceptOrRenoise` is the most probable one, so that its last
  pass has log-probabilities as greedy rows have. In soft inputs (`TokenMerge`, `SoftIteration`) the
  mixtures of a pass are made of what the pass before it predicts under `params`.
  """
  changes: dict[str, Any] = dict(network=network)
  if cache is not None:
    if "cache" not in {field.name for field in dataclasses.fields(trace.program)}:
      raise ValueError("only a trace of `denoise` has a cache policy: leave cache out")
    changes["cache"] = cache
  program = dataclasses.replace(trace.program, **changes)
  return _replay(program, params, trace.settings, trace.passes)


@functools.partial(jax.jit, static_argnames="program")
def _replay(
  program: Traceable, params: Params, settings: PyTree, passes: TracedPass
) -> Float[Array, "P B W"]:
  return program.replayed((params, *settings), passes)
