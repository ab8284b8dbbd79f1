"""Denoising by machines of blocks: a pipeline of them (D2F), and sub-blocks (Fast-dLLM v2)."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mtjax.arguments import TokenIds, integer
from mtjax.diffusion.denoising.caches import Uncached
from mtjax.diffusion.denoising.guidance import Unguided
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.pipeline import Pipeline, Pipelining
from mtjax.diffusion.denoising.prepare import as_ids, prepare
from mtjax.diffusion.denoising.result import Denoised, collect
from mtjax.diffusion.denoising.sub_blocks import SubBlocks
from mtjax.diffusion.denoising.traces import record
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.rule import PROBABILITY, PerRow
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling, Seed
from mtjax.sampling.per_row import per_row


def denoise_pipeline(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  pipeline: Pipeline = Pipeline(),
  in_flight: int = 4,
  sampling: Sampling | None = None,
  filtered_confidence: bool = False,
  key: Seed = 0,
  eos: Sequence[int] = (),
  trace: bool = False,
) -> Denoised:
  """Generates `length` tokens after each prompt, up to `in_flight` blocks at a time (`Pipeline`).

  Blocks are those of the block-causal network. After an `eos` no further block begins. `length`: a
  number, or one per row, each a multiple of the block's. Every pass computes the whole canvas as
  far as it has begun. Other arguments and errors are those of `denoise`; raises ValueError too for
  a network without blocks and for less than one block in flight.
  """
  _check_blocks(network, "a pipeline of blocks")
  if integer(in_flight, "in_flight") < 1:
    raise ValueError(f"in_flight must be at least 1, got {in_flight}")
  prompts = as_ids(prompts)
  plans = _plans(length, len(prompts), network.block_length)
  program, (params, job) = _prepared(
    network, params, prompts, plans, sampling, filtered_confidence, key, eos
  )
  blocks = -(-(np.asarray(job.end) - np.asarray(job.first)) // network.block_length)
  width = min(in_flight, int(blocks.max()))
  pipelining = Pipelining(network, network.block_length, width, program.score)
  return _run(pipelining, params, (job, pipeline.for_rows(len(prompts))), plans, trace)[0]


def denoise_sub_blocks(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  sub_block: int = 8,
  threshold: PerRow = 0.9,
  sampling: Sampling | None = None,
  filtered_confidence: bool = False,
  key: Seed = 0,
  eos: Sequence[int] = (),
  trace: bool = False,
) -> Denoised:
  """Generates `length` tokens after each prompt as Fast-dLLM v2 does, by `SubBlocks`.

  The network is block-causal with shifted logits; `sub_block` divides its blocks. Keys of finished
  blocks are exact; those of other sub-blocks are older than the pass, which is APPROXIMATE, and so
  is deciding several tokens per pass. A row ends with a block that has an `eos`; its last block is
  not committed. `Denoised.counters` has the passes over whole blocks and the commits, which
  `forwards` includes. Reading the prompt is not counted, but for the commit of the last block of a
  prompt that ends with one.

  Other arguments and errors are those of `denoise`; raises ValueError too for a network of other
  kind, a sub-block that does not divide the block, and a threshold outside (0, 1].
  """
  _check_blocks(network, "decoding by sub-blocks")
  if not network.shifted:
    raise ValueError(
      "decoding by sub-blocks needs a network with shifted logits, whose last entry of a block "
      "predicts the first token of the next one"
    )
  if network.block_length < 2:
    raise ValueError("decoding by sub-blocks needs blocks of at least 2 positions")
  if integer(sub_block, "sub_block") < 1 or network.block_length % sub_block:
    raise ValueError(
      f"sub_block must divide the network's blocks of {network.block_length} positions, got "
      f"{sub_block}"
    )
  prompts = as_ids(prompts)
  thresholds = per_row(threshold, len(prompts), "threshold")
  PROBABILITY.check(thresholds, "threshold")
  plans = _plans(length, len(prompts), network.block_length)
  program, (params, job) = _prepared(
    network, params, prompts, plans, sampling, filtered_confidence, key, eos
  )
  settings = (job, jnp.asarray(thresholds, jnp.float32))
  machine = SubBlocks(network, sub_block, program.score)
  done, state = _run(machine, params, settings, plans, trace)
  done.counters["whole_block_forwards"] = int(np.asarray(state.whole_passes).sum())
  done.counters["commit_forwards"] = int(np.asarray(state.commits).sum())
  return done


def _run(program, params: Params, settings, plans: Sequence[BlockPlan], trace: bool):
  """Returns the result of a program of blocks, with its trace if wanted, and its last state."""
  if not trace:
    state, clock = run.run(program, (params, *settings))
    return collect(settings[0], plans, state, clock), state
  last, traced = record(program, params, settings)
  done = collect(settings[0], plans, last.state, last.clock)
  return dataclasses.replace(done, trace=traced), last.state


def _check_blocks(network: MaskedNetwork, what: str) -> None:
  if not network.block_length:
    raise ValueError(
      f"{what} needs a block-causal network, in which no block sees a later one "
      "(MaskedNetwork.block_length)"
    )


def _plans(length: int | Sequence[int], batch: int, block_length: int) -> list[BlockPlan]:
  lengths = per_row(length, batch, "length")
  return [BlockPlan(one, block_length, max(1, one // block_length)) for one in lengths]


def _prepared(network, params, prompts, plans, sampling, filtered_confidence, key, eos):
  return prepare(
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
  )
