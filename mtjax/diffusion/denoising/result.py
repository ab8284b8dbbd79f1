"""The result of a denoising loop: tokens, and what they cost."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Int

from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.denoising.traces import Trace
from mtjax.diffusion.plan import BlockPlan
from mtjax.display.short import short_repr
from mtjax.rounds.stopwatch import Stopwatch


@dataclasses.dataclass(frozen=True)
class Denoised:
  """The generated tokens, and what they cost."""

  tokens: list[list[int]]  # up to the end-of-sequence token, which is among them, if there is one
  decided_at: list[list[int]]  # the pass that decided a token, from 1
  passes: Int[np.ndarray, " B"]  # passes that a row took part in
  forwards: Int[np.ndarray, " B"]  # forward passes of the network for a row
  counters: dict[str, Any]
  trace: Trace | None = None  # what each pass decided; None: it was not asked for

  __repr__ = short_repr


@runtime_checkable
class Canvases(Protocol):
  """What every state of a denoising loop has."""

  token: Int[Array, "B S"]
  masked: Bool[Array, "B S"]
  decided_at: Int[Array, "B S"]
  passes: Int[Array, " B"]
  finished: Bool[Array, " B"]


def frames(
  states: Iterator[tuple[Any, Stopwatch]], on_finish: Callable[[Any, Stopwatch], None]
) -> Iterator[tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]]:
  """Yields (token, decided_at) of states (`Canvases`), and calls `on_finish` with the last one."""
  for state, clock in states:
    # A state is donated to the rounds after it.
    if finished := bool(np.all(state.finished)):
      on_finish(state, clock)
    yield np.array(state.token), np.array(state.decided_at)
    # A row that only fills up a mesh may go on for longer.
    if finished:
      return


def collect(
  job: Job,
  plans: Sequence[BlockPlan],
  state: Canvases,
  clock: Stopwatch,
  *,
  forwards: Int[Array, " B"] | None = None,
) -> Denoised:
  """Returns the result of a run. `forwards`: forward passes per row, if not `passes`."""
  passes = np.asarray(state.passes if forwards is None else forwards)
  if job.is_target is None:
    start, lengths = np.asarray(job.start), [plan.length for plan in plans]
    positions = [np.arange(a, a + n) for a, n in zip(start, lengths, strict=True)]
  else:
    positions = [np.flatnonzero(row) for row in np.asarray(job.is_target)]
  return collect_rows(
    state,
    clock,
    positions=positions,
    eos=job.eos,
    forwards=passes * job.guidance.forwards,
  )


def collect_rows(
  state: Canvases,
  clock: Stopwatch,
  *,
  positions: Sequence[Int[np.ndarray, " N"]],
  eos: Int[Array, " E"],
  forwards: Int[np.ndarray, " B"],
) -> Denoised:
  """Returns the result of rows whose tokens at `positions` are wanted, up to an end token."""
  token, decided_at, masked = (np.asarray(x) for x in (state.token, state.decided_at, state.masked))
  end_tokens, tokens, decided = np.asarray(eos), [], []
  for row, here in enumerate(positions):
    known = ~masked[row, here]
    ends = np.flatnonzero(np.isin(token[row, here], end_tokens) & known)
    size = ends[0] + 1 if ends.size else int(known.sum())
    tokens.append(token[row, here][:size].tolist())
    decided.append(decided_at[row, here][:size].tolist())
  count, total = sum(map(len, tokens)), int(forwards.sum())
  return Denoised(
    tokens=tokens,
    decided_at=decided,
    passes=np.asarray(state.passes),
    forwards=forwards,
    counters=dict(
      tokens=count,
      forwards=total,
      tokens_per_forward=count / total,
      seconds=clock.seconds,
      compile_seconds=clock.compile_seconds,
      tokens_per_second=count / clock.seconds,
    ),
  )
