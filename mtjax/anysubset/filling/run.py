"""Fills the asked entries of canvases: a first pass, then rounds, in one XLA program."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mtjax.anysubset.canvas import Canvas, check_canvas
from mtjax.anysubset.filling import confidence
from mtjax.anysubset.filling import single_stream_step as single_stream_turns
from mtjax.anysubset.filling.confidence import Confidence
from mtjax.anysubset.filling.methods import FillMethod, SelfDraft, Sequential
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.filling.step import start, turn
from mtjax.anysubset.orders import asked_in_order, lattice
from mtjax.anysubset.single_stream import check_start, check_two_streams, is_single_stream
from mtjax.models import Model, Params
from mtjax.rounds.size_buckets import bucket
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import Sampling, draw, row_keys


@dataclasses.dataclass(frozen=True)
class Filled:
  """The canvases, and what it cost."""

  token: Int[np.ndarray, "B L"]  # asked entries filled in
  when: Int[np.ndarray, "B L"]  # forward pass that decided an entry, from 1; 0: not asked
  drafted: Bool[np.ndarray, "B L"]  # which were accepted drafts
  forwards: Int[np.ndarray, " B"]  # passes a row took part in
  counters: dict[str, Any]  # `mtjax.registry.counters.FILLING` says what each is


def fill(
  model: Model,
  params: Params,
  canvas: Canvas,
  *,
  method: FillMethod | Confidence = SelfDraft(),
  rank: Int[Array, "B L"] | None = None,
  sampling: Sampling | None = None,
  key: PRNGKeyArray | int = 0,
) -> Filled:
  """Draws the asked entries from the model's joint law given the given ones, in one program.

  `rank`: the order (mtjax.anysubset.orders; None: the lattice's, which the model was trained
  for). The law is that of `Sequential` in this order at these settings, as `method.exactness`
  says; `Confidence` decides the order itself, and the law is another. `sampling`: as in decoding,
  temperature 0 by default; penalties, which depend on an order, are refused. `key`: a seed or
  key, folded with the row index, or a [B] array of keys. The size, and how many entries are given
  and asked, are rounded up to those of `mtjax.rounds.size_buckets`: most other blanks cost no compilation.

  Raises ValueError, before compilation, for a row without an asked entry, given entries that are
  asked too or hold no token, a rank that is no order of the asked entries or beside a method that
  decides on one, settings out of their range, and any method but `Sequential` with a single-stream
  model, whose cache would be wrong.
  """
  problem, size = _prepare(model, method, canvas, rank, sampling, key)
  clock = Stopwatch()
  with clock.running():
    state = jax.block_until_ready(_fill(model, method, params, problem))
  return _collect(problem, state, clock, size)


def stream(
  model: Model,
  params: Params,
  canvas: Canvas,
  *,
  method: FillMethod | Confidence = SelfDraft(),
  rank: Int[Array, "B L"] | None = None,
  sampling: Sampling | None = None,
  key: PRNGKeyArray | int = 0,
) -> Iterator[Filled]:
  """The rounds of `fill`, stepped from Python: yields the canvases after each.

  Open entries have `when` 0. The same tokens and errors, the errors at once.
  """
  problem, size = _prepare(model, method, canvas, rank, sampling, key)
  return _stream(model, params, method, problem, size)


def _stream(model, params, method, problem, size):
  clock = Stopwatch()  # stands still while the caller does something else
  with clock.running():
    state = jax.block_until_ready(_start(model, method, params, problem))
  yield _collect(problem, state, clock, size)
  while bool(jnp.any(state.active(problem))):
    with clock.running():
      state = jax.block_until_ready(_round(model, method, params, problem, state))
    yield _collect(problem, state, clock, size)


def _begin(model, method, params, problem):
  if isinstance(method, Confidence):
    return confidence.start(model, params, method, problem)
  if is_single_stream(model.config):
    return single_stream_turns.start(model, params, problem)

  def choose(laws, place):
    del place
    return draw(laws[:, 0], problem.key, jnp.zeros_like(problem.total))[:, None]

  return start(model, params, method, problem, choose)


def _go_on(model, method, params, problem, state: FillState) -> FillState:
  """One round; a phase that no row needs any more is skipped."""
  if isinstance(method, Confidence):
    return confidence.turn(model, params, method, problem, state)
  if is_single_stream(model.config):
    return single_stream_turns.turn(model, params, problem, state)
  state = turn(model, params, method, problem, state, method.round[0])
  for phase in method.round[1:]:
    step = functools.partial(turn, model, params, method, problem, phase=phase)
    # A loop of at most one turn: a conditional would copy the cache.
    _, state = jax.lax.while_loop(
      lambda carry: carry[0] & jnp.any(carry[1].active(problem)),
      lambda carry, step=step: (jnp.array(False), step(carry[1])),
      (jnp.array(True), state),
    )
  return state


_STATIC = ("model", "method")
_start = jax.jit(_begin, static_argnames=_STATIC)
_round = jax.jit(_go_on, static_argnames=_STATIC, donate_argnames=("state",))


@functools.partial(jax.jit, static_argnames=_STATIC)
def _fill(model, method, params, problem):
  return jax.lax.while_loop(
    lambda state: jnp.any(state.active(problem)),
    functools.partial(_go_on, model, method, params, problem),
    _begin(model, method, params, problem),
  )


def _prepare(model, method, canvas: Canvas, rank, sampling, key) -> tuple[Problem, int]:
  """Checks, and sizes rounded up; the size that the canvas had."""
  if isinstance(method, Confidence) and rank is not None:
    raise ValueError("Confidence decides on the order as it fills: give no rank")
  if not isinstance(method, Sequential):
    check_two_streams(model.config, type(method).__name__)
  check_start(model.config, canvas)
  vocab = model.config.vocab_size
  given, asked = np.asarray(canvas.given), np.asarray(canvas.asked)
  batch, size = given.shape
  if not batch:
    raise ValueError("there is no canvas")
  if not asked.any(axis=1).all():
    raise ValueError(f"row {int(np.argmin(asked.any(axis=1)))} asks for nothing: it has no blank")
  check_canvas(model.config, canvas)
  order, total = asked_in_order(canvas, lattice(canvas) if rank is None else rank)
  rules = (sampling or Sampling()).rules(batch, vocab)
  if rules.needs_history:
    raise ValueError("a penalty depends on the order in which tokens come, which is not the text's")
  most = model.config.max_position
  room = bucket(order.shape[1], most=most)
  padding = ((0, 0), (0, bucket(size, most=most) - size))
  order = np.pad(order, ((0, 0), (0, room - order.shape[1])), constant_values=-1)
  return Problem(
    canvas=jax.tree.map(lambda x: jnp.asarray(np.pad(np.asarray(x), padding)), canvas),
    order=jnp.asarray(np.maximum(order, 0), jnp.int32),
    total=jnp.asarray(total, jnp.int32),
    rules=rules,
    key=row_keys(key, batch),
    most_given=bucket(int(given.sum(axis=1).max()), most=most),
  ), size


def _collect(problem: Problem, state: FillState, clock: Stopwatch, size: int) -> Filled:
  token, when, drafted = (np.asarray(x)[:, :size] for x in (state.token, state.when, state.drafted))
  forwards, count = np.asarray(state.forwards), np.asarray(state.count)
  return Filled(
    token=token,
    when=when,
    drafted=drafted,
    forwards=forwards,
    counters=dict(
      asked=int(np.asarray(problem.total).sum()),
      filled=int(count.sum()),
      forwards=int(forwards.sum()),
      tokens_per_forward=float(count.sum() / forwards.sum()),
      seconds=clock.seconds,
      compile_seconds=clock.compile_seconds,
    ),
  )
