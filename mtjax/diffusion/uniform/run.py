"""Denoising of uniform canvases in one XLA program, or pass by pass."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from mtjax.arguments import TokenIds
from mtjax.constraints.batch import Constraint
from mtjax.diffusion.denoising.result import Denoised, collect_rows
from mtjax.diffusion.denoising.traces import record
from mtjax.diffusion.uniform.accept_or_renoise import AcceptOrRenoise
from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.uniform.prepare import prepare_uniform
from mtjax.diffusion.uniform.rule import UniformRule
from mtjax.diffusion.uniform.state import UniformJob, UniformState
from mtjax.models import Params
from mtjax.rounds.placement import Placement
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import Sampling, Seeds
from mtjax.sharding import MeshLike

NOT_YET = -1  # in what `stream_uniform` yields, a position that no pass has predicted, or a mask


def denoise_uniform(
  network: UniformNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  steps: int | Sequence[int] = 48,
  rule: UniformRule = AcceptOrRenoise(),
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: Constraint = None,
  trace: bool = False,
  mesh: MeshLike = None,
) -> Denoised:
  """Generates `length` tokens after each prompt, canvas by canvas, from random tokens.

  A canvas begins as noise. Each of at most `steps` passes over it predicts all of its positions,
  and `rule` says what becomes of them; then its text is final, and the next canvas follows. A row
  ends with the canvas that has an `eos`. `length`, `steps` and the settings of `rule` may be one
  number per row. Whole canvases are computed, and what is beyond `length` is left out.

  `sampling`: filters (top_k, top_p, min_p, logit_bias), after the temperature, which is that of the
  rule. `key`: a seed or key, folded with the row index, or a [B] array of keys. Rows are
  independent: a row's text depends on its own prompt, key and settings.

  `constraint`: what a text must match (`mtjax.constraints`), one for all rows or one per row. Every
  text is accepted; its distribution is APPROXIMATE (`mtjax.diffusion.uniform.constrained`).
  `trace`: whether to keep what each pass decided, with log-probabilities, for
  `mtjax.diffusion.denoising.replay`; the passes are then steps of this process, and the text is the
  same.

  `mesh`: the devices to run on, such as "data:2,model:4" (`mtjax.sharding.parse_mesh`): rows are
  split over data, weights and heads over model; tokens are those of one device, up to rounding.
  None: where the parameters are.

  In the result `passes` are those over canvases. `forwards` of the counters also has those that
  read a finished canvas (`commit_forwards`), but not the one that reads the prompts. `decided_at`
  is the pass that changed a token last.

  Raises ValueError, before compilation, for no prompt, an empty prompt, token ids outside the
  vocabulary, more positions than the model has, a temperature or penalties in `sampling`, a length
  or steps below 1, settings out of range, noise with masks for a network without one, and a
  constraint that no text of `length` tokens satisfies, or without `eos`.
  """
  program, inputs, lengths = prepare_uniform(
    network,
    params,
    prompts,
    length=length,
    steps=steps,
    rule=rule,
    sampling=sampling,
    key=key,
    eos=eos,
    constraint=constraint,
  )
  job = inputs[1]
  placement = Placement.of(mesh, network.model.config, len(lengths))
  if not trace:
    state, clock = placement.run(program, inputs)
    return _collect(network, job, lengths, state, clock)
  last, traced = record(program, params, (job,), network.mask_id, placement)
  done = _collect(network, job, lengths, last.state, last.clock)
  return dataclasses.replace(done, trace=traced)


def stream_uniform(
  network: UniformNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  steps: int | Sequence[int] = 48,
  rule: UniformRule = AcceptOrRenoise(),
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: Constraint = None,
  every: int = 1,
  on_finish: Callable[[Denoised], None] | None = None,
  mesh: MeshLike = None,
) -> Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]]:
  """Yields (token, decided_at) of the texts before the first pass and after each.

  A canvas in progress shows the text that it would be if it ended now, NOT_YET where there is none.
  Settings, tokens and errors are those of `denoise_uniform`; errors are raised by the call itself.
  At the end `on_finish` is called with what `denoise_uniform` returns.
  """
  program, inputs, lengths = prepare_uniform(
    network,
    params,
    prompts,
    length=length,
    steps=steps,
    rule=rule,
    sampling=sampling,
    key=key,
    eos=eos,
    constraint=constraint,
  )
  placement = Placement.of(mesh, network.model.config, len(lengths))
  states = placement.stream(program, inputs, every=every)
  return _stream(network, states, inputs[1], lengths, on_finish)


def _stream(network: UniformNetwork, states, job: UniformJob, lengths: list[int], on_finish):
  for state, clock in states:
    # A state is donated to the rounds after it.
    finished = bool(np.all(state.finished))
    if on_finish is not None and finished:
      on_finish(_collect(network, job, lengths, state, clock))
    token, masked = np.array(state.token), np.array(state.masked)
    hidden = masked if network.mask_id is None else masked | (token == network.mask_id)
    yield np.where(hidden, NOT_YET, token), np.where(hidden, 0, np.array(state.decided_at))
    # A row that only fills up a mesh may go on for longer.
    if finished:
      return


def _collect(
  network: UniformNetwork,
  job: UniformJob,
  lengths: list[int],
  state: UniformState,
  clock: Stopwatch,
) -> Denoised:
  reads, starts = np.asarray(state.reads), np.asarray(job.start)
  done = collect_rows(
    state,
    clock,
    positions=[np.arange(a, a + n) for a, n in zip(starts, lengths, strict=True)],
    eos=job.eos,
    forwards=np.asarray(state.passes) + reads,
  )
  if network.commits:
    done.counters["commit_forwards"] = int(reads.sum())
  return done
