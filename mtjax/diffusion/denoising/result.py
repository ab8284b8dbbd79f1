"""The result of a denoising loop: tokens, and what they cost."""

import dataclasses
from collections.abc import Sequence
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


def collect(
  job: Job,
  plans: Sequence[BlockPlan],
  state: Canvases,
  clock: Stopwatch,
  *,
  forwards: Int[Array, " B"] | None = None,
) -> Denoised:
  """Returns the result of a run. `forwards`: forward passes per row, if not `passes`."""
  token, decided_at, masked = (np.asarray(x) for x in (state.token, state.decided_at, state.masked))
  eos, tokens, decided = np.asarray(job.eos), [], []
  for row, start in enumerate(np.asarray(job.start)):
    here = slice(start, start + plans[row].length)
    known = ~masked[row, here]
    ends = np.flatnonzero(np.isin(token[row, here], eos) & known)
    size = ends[0] + 1 if ends.size else int(known.sum())
    tokens.append(token[row, here][:size].tolist())
    decided.append(decided_at[row, here][:size].tolist())
  passes, count = np.asarray(state.passes), sum(map(len, tokens))
  total = int(np.asarray(passes if forwards is None else forwards).sum()) * job.guidance.forwards
  return Denoised(
    tokens=tokens,
    decided_at=decided,
    passes=passes,
    counters=dict(
      tokens=count,
      forwards=total,
      tokens_per_forward=count / total,
      seconds=clock.seconds,
      compile_seconds=clock.compile_seconds,
      tokens_per_second=count / clock.seconds,
    ),
  )
