"""Denoising: blocks of masks become text, pass by pass, in one XLA program."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mtjax.arguments import TokenIds, integer
from mtjax.constraints.batch import Constraint, rows_of
from mtjax.diffusion.denoising.caches import CachePolicy, Uncached
from mtjax.diffusion.denoising.guidance import Guidance, Unguided
from mtjax.diffusion.denoising.lookahead import Lookahead, LookaheadState
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.prepare import as_ids, check_stateless, plan_rows, prepare
from mtjax.diffusion.denoising.result import Denoised, collect, frames
from mtjax.diffusion.denoising.traces import record
from mtjax.diffusion.extents import Targets
from mtjax.diffusion.order.max_probability import MaxProbability
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.transfer.llada_counts import LladaCounts
from mtjax.models import Params
from mtjax.rounds.placement import Placement
from mtjax.sampling.logits import Sampling, Seeds
from mtjax.sharding import MeshLike

# LLaDA's published loop at temperature 0, where both orders of it are the same.
LLADA = DecidingPolicy(order=MaxProbability(), transfer=LladaCounts())


def denoise(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  plan: BlockPlan | Sequence[BlockPlan],
  policy: DecidingPolicy = LLADA,
  cache: CachePolicy = Uncached(),
  guidance: Guidance = Unguided(),
  sampling: Sampling | None = None,
  filtered_confidence: bool = False,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: Constraint = None,
  lookahead: int = 0,
  trace: bool = False,
  is_target: Targets | None = None,
  mesh: MeshLike = None,
) -> Denoised:
  """Generates `plan.length` tokens after each prompt, in blocks of `plan.block_length`.

  Rows are independent: a row's text depends on its own prompt, key and settings. A row ends after a
  block in which an `eos` is. `plan`: one for all rows, or one per row, whose lengths and steps may
  differ. `policy` says which positions a pass decides, `cache` what it computes, `guidance` what
  logits become; all say how exact they are. `sampling`: as in decoding, temperature 0 by default.
  `filtered_confidence`: confidences are those of the logits that tokens are sampled from, as in
  Dream, and not those of the model, as in LLaDA. `key`: a seed or key, folded with the row index,
  or a [B] array of keys.

  `lookahead`: each forward also computes that many canvases that the next passes are likely to see;
  the text and its trajectory are the same (`Lookahead`). `trace`: whether to keep what each pass
  decided, with log-probabilities, for `replay`; the passes are then steps of this process, and the
  text is the same.

  `constraint`: what a text must match (`mtjax.constraints`), one for all rows or one per row. Every
  text is accepted; its distribution is APPROXIMATE (`mtjax.constraints.canvas`).

  `mesh`: the devices to run on, such as "data:2,model:4" (`mtjax.sharding.parse_mesh`): rows are
  split over data, weights and heads over model; tokens are those of one device, up to rounding.
  Where data does not divide the rows, copies of the last one fill the batch, and are left out of
  the result. None: where the parameters are.

  A block-causal network's blocks begin at multiples of their length: the first block then holds the
  end of the prompt too, and the last one is whole.

  `is_target`: one list of bool per row, if the masks are among given tokens. `prompts` are then
  whole texts, whose targets are generated, whatever tokens stand there, given all other tokens
  that a target's entry sees: all of them in a bidirectional network, those of its block and before
  in a block-causal one, whose canvas ends with the last target's block. Blocks begin at the first
  target, and are as many as there are targets for; `plan.length` means nothing. A pass is made over
  every block, also one without a target. `Denoised` has the tokens of the targets, from left to
  right; leave `eos` out for all of them.

  Raises ValueError, before compilation, for no prompt, an empty prompt, token ids outside the
  vocabulary, more entries than the model has positions, penalties, a plan whose blocks are not the
  network's, plans that do not fit the rows or each other, rules, guidance or caches that do not fit
  together, lookahead with a cache or with a trace, and a constraint that no text of `plan.length`
  tokens satisfies, or without `eos`; with `is_target` also for rows of other lengths than the
  prompts', a row without a target, a mask that is given, a constraint, an any-subset model, and a
  rule that moves positions.
  """
  prompts = as_ids(prompts)
  plans = plan_rows(plan, len(prompts))
  if is_target is not None and any(one is not None for one in rows_of(constraint, len(prompts))):
    raise ValueError("a constraint is about the text after a prompt: leave is_target out")
  program, inputs = prepare(
    network,
    params,
    prompts,
    plans=plans,
    policy=policy,
    cache=cache,
    guidance=guidance,
    sampling=sampling,
    filtered_confidence=filtered_confidence,
    key=key,
    eos=eos,
    constraint=constraint,
    is_target=is_target,
  )
  job = inputs[1]
  ahead = _ahead(program, inputs, cache, guidance, lookahead)
  if lookahead and trace:
    raise ValueError("with lookahead a forward has several passes: a trace needs lookahead 0")
  placement = Placement.of(mesh, network.model.config, len(prompts))
  if not trace:
    state, clock = placement.run(ahead, inputs)
    return _result(job, plans, state, clock)
  last, traced = record(program, params, (job,), network.mask_id, placement)
  return dataclasses.replace(collect(job, plans, last.state, last.clock), trace=traced)


def stream(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  plan: BlockPlan | Sequence[BlockPlan],
  policy: DecidingPolicy = LLADA,
  cache: CachePolicy = Uncached(),
  guidance: Guidance = Unguided(),
  sampling: Sampling | None = None,
  filtered_confidence: bool = False,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: Constraint = None,
  lookahead: int = 0,
  every: int = 1,
  on_finish: Callable[[Denoised], None] | None = None,
  mesh: MeshLike = None,
) -> Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]]:
  """Yields (token, decided_at) of the canvases before the first pass and after each.

  Masked positions hold the mask, prompts have decided_at 0. Settings, tokens and errors are those
  of `denoise`; errors are raised by the call itself. With `lookahead` there is one canvas per
  forward, which may have made several passes. At the end `on_finish` is called with what `denoise`
  returns.
  """
  prompts = as_ids(prompts)
  plans = plan_rows(plan, len(prompts))
  program, inputs = prepare(
    network,
    params,
    prompts,
    plans=plans,
    policy=policy,
    cache=cache,
    guidance=guidance,
    sampling=sampling,
    filtered_confidence=filtered_confidence,
    key=key,
    eos=eos,
    constraint=constraint,
  )
  job, ahead = inputs[1], _ahead(program, inputs, cache, guidance, lookahead)

  def finished(state, clock):
    if on_finish is not None:
      on_finish(_result(job, plans, state, clock))

  placement = Placement.of(mesh, network.model.config, len(prompts))
  return frames(placement.stream(ahead, inputs, every=every), finished)


def _ahead(program, inputs, cache, guidance, lookahead: int) -> Any:
  """Returns the program, with lookahead if there is one. Raises ValueError where it cannot be."""
  if not _check_lookahead(lookahead):
    return program
  check_stateless(program.network, *inputs, cache, guidance)
  return Lookahead(program, lookahead)


def _result(job, plans: Sequence[BlockPlan], state, clock) -> Denoised:
  forwards = state.forwards if isinstance(state, LookaheadState) else None
  return collect(job, plans, state, clock, forwards=forwards)


def _check_lookahead(lookahead: int) -> int:
  if integer(lookahead, "lookahead") < 0:
    raise ValueError(f"lookahead must be at least 0, got {lookahead}")
  return lookahead
