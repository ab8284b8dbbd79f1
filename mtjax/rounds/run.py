"""The one loop that runs the rounds of every method: in one XLA program, or stepped from Python.

Decoding, filling and denoising differ in what a state is and what a round does to it. This file
makes programs of rounds, takes their time, and lets a caller see what came so far.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from mtjax import hosts
from mtjax.rounds.stopwatch import Stopwatch

State = TypeVar("State")

# (state, what the stage before returned, None for the first) -> what the next stage needs. The last
# stage of a round returns (the new state, what there is to observe).
Stage = Callable[[State, PyTree], PyTree]
Stages = Mapping[str, Stage]


@runtime_checkable
class Program(Protocol[State]):
  """The static part of what is compiled: model, method and sizes, frozen and hashable.

  `inputs` is a tuple of everything that is not static: parameters, requests, prompts, canvases.
  """

  def begin(self, inputs: PyTree) -> State:
    """Returns the state before the first round, with prompts or context entries committed."""
    ...

  def observe_begin(self, inputs: PyTree) -> tuple[State, PyTree]:
    """Returns what `begin` does, and small arrays that say what happened; only `record` calls it.

    None in place of the arrays: a state says it all.
    """
    ...

  def stages(self, inputs: PyTree) -> Stages:
    """Returns the stages of a round, by name and in order.

    A round leaves rows that are not active as they were.
    """
    ...

  def observe(self, observed: PyTree) -> PyTree:
    """Returns small arrays that say what happened in a round; only `record` calls it.

    `observed` is what the last stage returned to observe.
    """
    ...

  def active(self, inputs: PyTree, state: State) -> Bool[Array, " B"]:
    """Returns true for rows that are not finished. A round must bring them nearer to their end."""
    ...


def run(program: Program[State], inputs: PyTree) -> tuple[State, Stopwatch]:
  """Returns the state after the last round, and the time of `begin` and all rounds together."""
  clock = Stopwatch()
  with clock.running():
    hosts.compile_together(whole, program, inputs)
    state = jax.block_until_ready(whole(program, inputs))
  return state, clock


def stream(
  program: Program[State], inputs: PyTree, *, every: int = 1
) -> Iterator[tuple[State, Stopwatch]]:
  """Yields the state after `begin`, then after every `every` rounds, and after the last one.

  The states are those of `run`. A state is donated to the rounds that follow it, so a caller must
  copy what it keeps. The stopwatch stands still while the caller does something else.
  """
  clock = Stopwatch()
  with clock.running():
    hosts.compile_together(begin, program, inputs)
    state, unfinished = begin(program, inputs)
    hosts.compile_together(advance, program, inputs, state, every)
    jax.block_until_ready(unfinished)
  yield state, clock
  while np.asarray(unfinished):
    with clock.running():
      state, unfinished = advance(program, inputs, state, every)
      jax.block_until_ready(unfinished)
    yield state, clock


class Recorded(NamedTuple):
  """One round, or the prefill, as `record` yields it."""

  state: Any
  clock: Stopwatch  # time of the whole run so far
  seconds: dict[str, float]  # time of this round by stage; "prefill" alone for the prefill
  observed: PyTree  # numpy arrays of what `Program.observe` or `observe_begin` returns


def record(program: Program[State], inputs: PyTree) -> Iterator[Recorded]:
  """Yields the states of `stream` for every round, with the time of each stage and what it did.

  Every stage is a program of its own and the host waits for each, so a run takes longer than with
  `run`. A state is donated, as in `stream`.
  """
  clock, part = Stopwatch(), Stopwatch()
  with clock.running(), part.running():
    hosts.compile_together(_observed_begin, program, inputs)
    state, unfinished, observed = jax.block_until_ready(_observed_begin(program, inputs))
  yield Recorded(state, clock, dict(prefill=part.seconds), jax.tree.map(hosts.whole, observed))
  *first, last = program.stages(inputs)
  is_new = True
  while np.asarray(unfinished):
    work, seconds = None, {}
    for name in first:
      part = Stopwatch()
      with clock.running(), part.running():
        if is_new:
          hosts.compile_together(_stage, program, name, inputs, state, work)
        work = jax.block_until_ready(_stage(program, name, inputs, state, work))
      seconds[name] = part.seconds
    part = Stopwatch()
    with clock.running(), part.running():
      if is_new:
        hosts.compile_together(_last_stage, program, last, inputs, state, work)
      is_new = False
      state, unfinished, observed = jax.block_until_ready(
        _last_stage(program, last, inputs, state, work)
      )
    seconds[last] = part.seconds
    yield Recorded(state, clock, seconds, jax.tree.map(hosts.whole, observed))


def run_stages(stages: Stages, state: State) -> State:
  """Returns the state after a round, which runs all stages one after the other."""
  work = None
  for stage in stages.values():
    work = stage(state, work)
  return work[0]


def loop(
  step: Callable[[State], State],
  active: Callable[[State], Bool[Array, " B"]],
  state: State,
  max_rounds: Int[Array, ""] | int | None = None,
) -> State:
  """Returns `state` after rounds until no row is active, or after `max_rounds`, by a while_loop."""

  def unfinished(carry):
    done, state = carry
    running = jnp.any(active(state))
    return running if max_rounds is None else running & (done < max_rounds)

  def body(carry):
    done, state = carry
    return done + 1, step(state)

  return jax.lax.while_loop(unfinished, body, (jnp.int32(0), state))[1]


def _rounds(program, inputs, state, max_rounds):
  step = functools.partial(run_stages, program.stages(inputs))
  return loop(step, functools.partial(program.active, inputs), state, max_rounds)


@functools.partial(jax.jit, static_argnames="program")
def whole(program: Program[State], inputs: PyTree) -> State:
  """Returns the last state. This is the one program of `run`."""
  return _rounds(program, inputs, program.begin(inputs), None)


@functools.partial(jax.jit, static_argnames="program")
def begin(program: Program[State], inputs: PyTree) -> tuple[State, Bool[Array, ""]]:
  """Returns the first state and if any row is active. This is the first program of `stream`."""
  state = program.begin(inputs)
  return state, jnp.any(program.active(inputs, state))


@functools.partial(jax.jit, static_argnames="program", donate_argnames="state")
def advance(
  program: Program[State], inputs: PyTree, state: State, max_rounds: Int[Array, ""] | int
) -> tuple[State, Bool[Array, ""]]:
  """Returns the state after `max_rounds` rounds and if any row is active: `stream`'s second one."""
  state = _rounds(program, inputs, state, max_rounds)
  return state, jnp.any(program.active(inputs, state))


@functools.partial(jax.jit, static_argnames="program")
def _observed_begin(program: Program[State], inputs: PyTree):
  state, observed = program.observe_begin(inputs)
  return state, jnp.any(program.active(inputs, state)), observed


@functools.partial(jax.jit, static_argnames=("program", "name"))
def _stage(program: Program[State], name: str, inputs: PyTree, state: State, work: PyTree):
  return program.stages(inputs)[name](state, work)


@functools.partial(jax.jit, static_argnames=("program", "name"), donate_argnames="state")
def _last_stage(program: Program[State], name: str, inputs: PyTree, state: State, work: PyTree):
  state, observed = program.stages(inputs)[name](state, work)
  return state, jnp.any(program.active(inputs, state)), program.observe(observed)
