"""The one loop that runs the rounds of every method: in one XLA program, or stepped from Python.

Decoding, filling and denoising differ in what a state is and what a round does to it. How rounds
become a program, how long that program took, and how a caller sees what came so far is here.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from mtjax.rounds.stopwatch import Stopwatch

State = TypeVar("State")


@runtime_checkable
class Program(Protocol[State]):
  """The static part of a run, frozen and hashable: the model, the method and sizes.

  `inputs` is a tuple of everything that is not: parameters, requests, prompts, canvases.
  """

  def begin(self, inputs: PyTree) -> State:
    """Returns the state before the first round: prompts or context entries are committed."""
    ...

  def round(self, inputs: PyTree, state: State) -> State:
    """Returns the state after one round; rows that are not active stay as they are."""
    ...

  def active(self, inputs: PyTree, state: State) -> Bool[Array, " B"]:
    """Returns which rows are not finished. A round brings every active row nearer to its end."""
    ...


def run(program: Program[State], inputs: PyTree) -> tuple[State, Stopwatch]:
  """Returns the state after the last round, and the time it took: begin and all rounds at once."""
  clock = Stopwatch()
  with clock.running():
    state = jax.block_until_ready(whole(program, inputs))
  return state, clock


def stream(
  program: Program[State], inputs: PyTree, *, every: int = 1
) -> Iterator[tuple[State, Stopwatch]]:
  """Yields the state after `begin` and then after every `every` rounds, to the end.

  The states are those of `run`. A state is donated to the rounds that follow it: what a caller
  keeps, it copies. The stopwatch stands still while the caller does something else.
  """
  clock = Stopwatch()
  with clock.running():
    state, unfinished = begin(program, inputs)
    jax.block_until_ready(unfinished)
  yield state, clock
  while np.asarray(unfinished):
    with clock.running():
      state, unfinished = go_on(program, inputs, state, every)
      jax.block_until_ready(unfinished)
    yield state, clock


def loop(
  step: Callable[[State], State],
  active: Callable[[State], Bool[Array, " B"]],
  state: State,
  max_rounds: Int[Array, ""] | int | None = None,
) -> State:
  """Returns `state` after rounds until no row is active, or `max_rounds` of them: a while_loop."""

  def unfinished(carry):
    done, state = carry
    running = jnp.any(active(state))
    return running if max_rounds is None else running & (done < max_rounds)

  def body(carry):
    done, state = carry
    return done + 1, step(state)

  return jax.lax.while_loop(unfinished, body, (jnp.int32(0), state))[1]


def _rounds(program, inputs, state, max_rounds):
  step, active = (functools.partial(f, inputs) for f in (program.round, program.active))
  return loop(step, active, state, max_rounds)


@functools.partial(jax.jit, static_argnames="program")
def whole(program: Program[State], inputs: PyTree) -> State:
  """Returns the last state: the one program of `run`."""
  return _rounds(program, inputs, program.begin(inputs), None)


@functools.partial(jax.jit, static_argnames="program")
def begin(program: Program[State], inputs: PyTree) -> tuple[State, Bool[Array, ""]]:
  """Returns the first state, and whether a row is active: the first program of `stream`."""
  state = program.begin(inputs)
  return state, jnp.any(program.active(inputs, state))


@functools.partial(jax.jit, static_argnames="program", donate_argnames="state")
def go_on(
  program: Program[State], inputs: PyTree, state: State, max_rounds: Int[Array, ""] | int
) -> tuple[State, Bool[Array, ""]]:
  """Returns the state after `max_rounds` rounds, and whether a row is active: the second one."""
  state = _rounds(program, inputs, state, max_rounds)
  return state, jnp.any(program.active(inputs, state))
