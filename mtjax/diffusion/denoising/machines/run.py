"""Denoising by machines: several blocks in flight (D2F, block buffers), or sub-blocks."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from mtjax.arguments import TokenIds
from mtjax.constraints.batch import Constraint
from mtjax.diffusion.denoising.caches import Uncached
from mtjax.diffusion.denoising.guidance import Unguided
from mtjax.diffusion.denoising.machines.protocol import BlockMachine
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.prepare import as_ids, prepare
from mtjax.diffusion.denoising.result import Denoised, collect, frames
from mtjax.diffusion.denoising.traces import record
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.models import Params
from mtjax.rounds.placement import Placement
from mtjax.sampling.logits import Sampling, Seeds
from mtjax.sampling.per_row import per_row
from mtjax.sharding import MeshLike


def denoise_by_blocks(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  machine: BlockMachine,
  sampling: Sampling | None = None,
  filtered_confidence: bool = False,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: Constraint = None,
  trace: bool = False,
  mesh: MeshLike = None,
) -> Denoised:
  """Generates `length` tokens after each prompt as `machine` does, which says how.

  Blocks are those of the block-causal network. `length`: a number, or one per row, each a multiple
  of the block's. `constraint`: what a text must match; every text is accepted, and its distribution
  is APPROXIMATE (`mtjax.constraints.canvas`): tokens that a pass edits fit all others, too. Other
  arguments and errors are those of `denoise`; raises ValueError too for a network that the machine
  cannot run on.
  """
  program, inputs, plans = _prepared(
    network, params, prompts, length, machine, sampling, filtered_confidence, key, eos, constraint
  )
  placement = Placement.of(mesh, network.model.config, len(plans))
  if not trace:
    state, clock = placement.run(program, inputs)
    return _result(machine, inputs, plans, state, clock)
  last, traced = record(program, params, inputs[1:], network.mask_id, placement)
  done = _result(machine, inputs, plans, last.state, last.clock)
  return dataclasses.replace(done, trace=traced)


def stream_by_blocks(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  machine: BlockMachine,
  sampling: Sampling | None = None,
  filtered_confidence: bool = False,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: Constraint = None,
  every: int = 1,
  on_finish: Callable[[Denoised], None] | None = None,
  mesh: MeshLike = None,
) -> Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]]:
  """Yields what `stream` yields, before the first pass of `denoise_by_blocks` and after each.

  At the end `on_finish` is called with what `denoise_by_blocks` returns.
  """
  program, inputs, plans = _prepared(
    network, params, prompts, length, machine, sampling, filtered_confidence, key, eos, constraint
  )

  def finished(state, clock):
    if on_finish is not None:
      on_finish(_result(machine, inputs, plans, state, clock))

  placement = Placement.of(mesh, network.model.config, len(plans))
  return frames(placement.stream(program, inputs, every=every), finished)


def _result(machine: BlockMachine, inputs, plans: Sequence[BlockPlan], state, clock) -> Denoised:
  done = collect(inputs[1], plans, state, clock)
  done.counters.update(machine.counters(state))
  return done


def _prepared(
  network, params, prompts, length, machine, sampling, filtered_confidence, key, eos, constraint
):
  """Returns the program, its inputs and the plan of each row."""
  machine.check(network)
  prompts = as_ids(prompts)
  lengths = per_row(length, len(prompts), "length")
  size = network.block_length
  plans = [BlockPlan(one, size, max(1, one // size)) for one in lengths]
  rows = machine.for_rows(len(prompts))
  program, (params, job) = prepare(
    network,
    params,
    prompts,
    plans=plans,
    policy=DecidingPolicy(),  # it decides nothing here
    cache=Uncached(),
    guidance=Unguided(),
    sampling=sampling,
    filtered_confidence=filtered_confidence,
    key=key,
    eos=eos,
    constraint=constraint,
  )
  # Of the size of canvases, not of the longest: a program serves all canvases of its size.
  blocks = -(-job.size // size)
  return machine.program(network, program.score, blocks), (params, job, rows), plans
