"""Denoising from left to right, with a causal model that says how far a pass may go."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from mtjax.arguments import TokenIds
from mtjax.diffusion.denoising.adaptive.program import AdaptiveRounds
from mtjax.diffusion.denoising.adaptive.rule import AdaptiveParallel
from mtjax.diffusion.denoising.caches import Uncached
from mtjax.diffusion.denoising.guidance import Unguided
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.prepare import as_ids, prepare
from mtjax.diffusion.denoising.result import Denoised, collect, frames
from mtjax.diffusion.denoising.traces import record
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.models import Model, Params, check_causal
from mtjax.rounds.placement import Placement, warn_of_heads
from mtjax.sampling.logits import Sampling, Seeds
from mtjax.sampling.per_row import per_row
from mtjax.sharding import MeshLike


def denoise_adaptively(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  causal: Model,
  causal_params: Params,
  length: int | Sequence[int],
  rule: AdaptiveParallel = AdaptiveParallel(),
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  trace: bool = False,
  mesh: MeshLike = None,
) -> Denoised:
  """Generates up to `length` tokens after each prompt as `rule` says (APD, APPROXIMATE).

  `causal` is a causal model with the vocabulary of the masked network. A row ends at an `eos`.
  `Denoised.counters` has the masked network's passes as `forwards`, and those of the causal model,
  without the one that reads the prompt, as `causal_forwards`. Other arguments are those of
  `denoise`; of a trace, `replay` takes the parameters of the masked network, which all tokens are
  sampled from. Raises ValueError as it does, for another vocabulary, for a model that is not
  causal, and for one with fewer positions than a canvas has.
  """
  program, inputs, plans = _prepared(
    network, params, prompts, causal, causal_params, length, rule, sampling, key, eos
  )
  placement = _placement(network, params, causal, len(plans), mesh)
  if not trace:
    state, clock = placement.run(program, inputs)
    return _result(inputs, plans, state, clock)
  last, traced = record(program, inputs[0], inputs[1:], network.mask_id, placement)
  return dataclasses.replace(_result(inputs, plans, last.state, last.clock), trace=traced)


def stream_adaptively(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  causal: Model,
  causal_params: Params,
  length: int | Sequence[int],
  rule: AdaptiveParallel = AdaptiveParallel(),
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  every: int = 1,
  on_finish: Callable[[Denoised], None] | None = None,
  mesh: MeshLike = None,
) -> Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]]:
  """Yields what `stream` yields, before the first pass of `denoise_adaptively` and after each.

  At the end `on_finish` is called with what `denoise_adaptively` returns.
  """
  program, inputs, plans = _prepared(
    network, params, prompts, causal, causal_params, length, rule, sampling, key, eos
  )

  def finished(state, clock):
    if on_finish is not None:
      on_finish(_result(inputs, plans, state, clock))

  placement = _placement(network, params, causal, len(plans), mesh)
  return frames(placement.stream(program, inputs, every=every), finished)


def _placement(
  network: MaskedNetwork, params: Params, causal: Model, rows: int, mesh: MeshLike
) -> Placement:
  placement = Placement.of(mesh, network.model.config, rows).beside(params)
  if placement.mesh is not None:
    # The stack level is that of the caller of denoise_adaptively or stream_adaptively.
    warn_of_heads("the causal model", causal.config.kv_heads, placement.mesh, stacklevel=4)
  return placement


def _result(inputs, plans: Sequence[BlockPlan], state, clock) -> Denoised:
  done = collect(inputs[1], plans, state, clock)
  done.counters["causal_forwards"] = done.counters["forwards"]
  return done


def _prepared(network, params, prompts, causal, causal_params, length, rule, sampling, key, eos):
  """Returns the program, its inputs and the plan of each row."""
  check_causal(causal, "the model that accepts drafts")
  ours, other = network.model.config.vocab_size, causal.config.vocab_size
  if ours != other:
    raise ValueError(
      f"the two models must have one vocabulary: the masked one has {ours} tokens, and the causal "
      f"one {other}"
    )
  prompts = as_ids(prompts)
  lengths = per_row(length, len(prompts), "length")
  # Blocks mean nothing here, but for what a block-causal network sees.
  plans = [BlockPlan(one, network.block_length or 1, one) for one in lengths]
  _, (params, job) = prepare(
    network,
    params,
    prompts,
    plans=plans,
    policy=DecidingPolicy(),  # it decides nothing here
    cache=Uncached(),
    guidance=Unguided(),
    sampling=sampling,
    filtered_confidence=False,
    key=key,
    eos=eos,
  )
  longest = int(np.asarray(job.end).max())
  if longest > causal.config.max_position:
    raise ValueError(
      f"a canvas has {longest} entries, and the causal model {causal.config.max_position} positions"
    )
  rows = rule.for_rows(len(prompts))
  program = AdaptiveRounds(network, causal, min(rule.parallel, job.size))
  return program, ((params, causal_params), job, rows), plans
