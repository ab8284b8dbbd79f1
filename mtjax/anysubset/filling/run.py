"""Fills the target entries of canvases: a first pass, then rounds, in one XLA program."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from mtjax.anysubset.canvas import Canvas, banned_token, check_canvas
from mtjax.anysubset.filling.constrained import BlankConstraint, constraint_of
from mtjax.anysubset.filling.history import pass_records
from mtjax.anysubset.filling.method import FillMethod
from mtjax.anysubset.filling.methods import SelfDraft
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.network import Network, without_mask
from mtjax.anysubset.orders import lattice, targets_in_order
from mtjax.anysubset.single_stream import check_start
from mtjax.display.short import short_repr
from mtjax.models import Params
from mtjax.rounds.history import RoundRecord
from mtjax.rounds.placement import Placement
from mtjax.rounds.run import Recorded
from mtjax.rounds.size_buckets import bucket
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import Sampling, Seeds, row_keys
from mtjax.sharding import MeshLike


@dataclasses.dataclass(frozen=True)
class Filled:
  """The filled canvases, and what filling them cost."""

  token: Int[np.ndarray, "B L"]  # the canvas, with target entries filled in
  decided_at: Int[np.ndarray, "B L"]  # forward pass that decided an entry, from 1; 0: no target
  drafted: Bool[np.ndarray, "B L"]  # true at entries that were accepted drafts
  forwards: Int[np.ndarray, " B"]  # number of passes that a row took part in
  counters: dict[str, Any]  # `mtjax.registry.counters.FILLING` says what each is
  history: list[RoundRecord] | None = None  # what each pass decided; None: it was not asked for
  problem: Problem | None = None  # beside a history: what was filled, with all sizes rounded up

  __repr__ = short_repr


def fill(
  model: Network,
  params: Params,
  canvas: Canvas,
  *,
  method: FillMethod = SelfDraft(),
  rank: Int[Array | np.ndarray, "B L"] | None = None,
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: BlankConstraint = None,
  history: bool = False,
  mesh: MeshLike = None,
) -> Filled:
  """Samples the target entries from the model's joint distribution given the context.

  Everything runs in one program. `rank`: the order (mtjax.anysubset.orders; None: the lattice's,
  which the model was trained for). The distribution is that of `Sequential` in this order at these
  settings, as far as `method.exactness` says; `Confidence` decides the order itself, which changes
  the distribution. `sampling`: as in decoding, temperature 0 by default; penalties, which depend
  on an order, are refused. `key`: a seed or key, folded with the row index, or a [B] array of keys.
  The size, and the numbers of context and target entries, are rounded up to those of
  `mtjax.rounds.size_buckets`, so that other blanks mostly cost no compilation. `history`: whether
  to keep what each pass decided, with log-probabilities, and the time of each round
  (`mtjax.rounds.history`); the tokens are the same. `mesh`: the devices to run on, such as
  "data:2,model:4" (`mtjax.sharding.parse_mesh`): rows are split over data, weights and heads over
  model, and tokens are those of one device, up to rounding. Where data does not divide the rows,
  copies of the last one fill the batch, and are left out of the result. None: where the parameters
  are.

  Raises ValueError, before compilation, for a row without a target entry, context entries that are
  targets too or hold no token, a rank that is no order of the target entries, a rank for a method
  that decides the order itself, settings out of their range, any method but `Sequential` with a
  single-stream model, whose cache would be wrong, and a constraint that no text of a blank's size
  satisfies, or beside banned tokens.
  """
  problem, size = _prepare(model, method, canvas, rank, sampling, key, eos, constraint)
  program = _Filling(without_mask(model), method)
  if history:
    *_, last = _recorded(program, params, problem, size, mesh)
    return last
  state, clock = _placement(program, problem, mesh).run(program, (params, problem))
  return _collect(problem, state, clock, size)


def stream(
  model: Network,
  params: Params,
  canvas: Canvas,
  *,
  method: FillMethod = SelfDraft(),
  rank: Int[Array | np.ndarray, "B L"] | None = None,
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] = (),
  constraint: BlankConstraint = None,
  history: bool = False,
  mesh: MeshLike = None,
) -> Iterator[Filled]:
  """Yields the canvases after each round of `fill`, which is stepped from Python.

  Open entries have `decided_at` 0. The tokens and the errors are those of `fill`; errors are raised
  by the call itself, before the first round. `Filled.history` is that of the rounds so far.
  """
  problem, size = _prepare(model, method, canvas, rank, sampling, key, eos, constraint)
  program = _Filling(without_mask(model), method)
  if history:
    return _recorded(program, params, problem, size, mesh)
  states = _placement(program, problem, mesh).stream(program, (params, problem))
  return (_collect(problem, state, clock, size) for state, clock in states)


@dataclasses.dataclass(frozen=True)
class _Filling:
  """A `rounds.Program` whose inputs are (params, problem)."""

  model: Network
  method: FillMethod

  def begin(self, inputs) -> FillState:
    return self.method.start(self.model, *inputs)

  def observe_begin(self, inputs):
    return self.begin(inputs), None

  def stages(self, inputs):
    def step(state: FillState, _):
      return self.method.step(self.model, *inputs, state), None

    return {"round": step}

  def observe(self, observed):
    return observed  # a state says when each entry was decided

  def active(self, inputs, state: FillState):
    return state.active(inputs[1])


def _prepare(
  model, method, canvas: Canvas, rank, sampling, key, eos, constraint
) -> tuple[Problem, int]:
  """Returns the checked problem with sizes rounded up, and the size that the canvas had."""
  if method.decides_order and rank is not None:
    raise ValueError(f"{type(method).__name__} decides the order as it fills: give no rank")
  method.check(model.config)
  check_start(model.config, canvas)
  vocab = model.config.vocab_size
  is_context, is_target = np.asarray(canvas.is_context), np.asarray(canvas.is_target)
  batch, size = is_context.shape
  if not batch:
    raise ValueError("there is no canvas to fill: the batch is empty")
  if not is_target.any(axis=1).all():
    raise ValueError(
      f"row {int(np.argmin(is_target.any(axis=1)))} has no target entry: nothing is to be filled"
    )
  check_canvas(model.config, canvas)
  order, total = targets_in_order(canvas, lattice(canvas) if rank is None else rank)
  rules = (sampling or Sampling()).rules(batch, vocab)
  if rules.needs_history:
    raise ValueError(
      "filling takes no penalty: it depends on the order of tokens, which is not the text's here"
    )
  limit = model.config.max_position
  places = bucket(order.shape[1], maximum=limit)
  padding = ((0, 0), (0, bucket(size, maximum=limit) - size))
  order = np.pad(order, ((0, 0), (0, places - order.shape[1])), constant_values=-1)
  if constraint is not None and sampling is not None:
    sampling.check_no_ban()
  mask = banned_token(model.config)
  never = () if mask is None else (mask,)  # other queries are no tokens of the vocabulary
  return Problem(
    constraint=constraint_of(constraint, canvas, size + padding[1][1], vocab, tuple(eos), never),
    eos=jnp.asarray(tuple(eos), jnp.int32) if eos else None,
    canvas=jax.tree.map(lambda x: jnp.asarray(np.pad(np.asarray(x), padding)), canvas),
    order=jnp.asarray(np.maximum(order, 0), jnp.int32),
    total=jnp.asarray(total, jnp.int32),
    rules=rules,
    key=row_keys(key, batch),
    max_context=bucket(int(is_context.sum(axis=1).max()), maximum=limit),
  ), size


def _placement(program: _Filling, problem: Problem, mesh: MeshLike) -> Placement:
  return Placement.of(mesh, program.model.config, problem.total.shape[0])


def _recorded(
  program: _Filling, params, problem: Problem, size: int, mesh: MeshLike
) -> Iterator[Filled]:
  """Returns what `stream` yields, with the history so far."""
  problem = problem.replace(recorded=True)
  states = _placement(program, problem, mesh).record(program, (params, problem))
  return _with_history(states, problem, size)


def _with_history(states: Iterator[Recorded], problem: Problem, size: int) -> Iterator[Filled]:
  history: list[RoundRecord] = []
  passes = np.zeros(problem.total.shape[0], int)
  for found in states:
    before, passes = passes, np.array(found.state.forwards)
    rows = pass_records(problem, found.state, before)
    history.append(RoundRecord(found.seconds, rows))
    filled = _collect(problem, found.state, found.clock, size)
    yield dataclasses.replace(filled, history=list(history), problem=problem)


def _collect(problem: Problem, state: FillState, clock: Stopwatch, size: int) -> Filled:
  token, decided_at, drafted = (
    np.asarray(x)[:, :size] for x in (state.token, state.decided_at, state.drafted)
  )
  forwards, count = np.asarray(state.forwards), np.asarray(state.count)
  return Filled(
    token=token,
    decided_at=decided_at,
    drafted=drafted,
    forwards=forwards,
    counters=dict(
      targets=int(np.asarray(problem.total).sum()),
      filled=int(count.sum()),
      forwards=int(forwards.sum()),
      tokens_per_forward=float(count.sum() / forwards.sum()),
      seconds=clock.seconds,
      compile_seconds=clock.compile_seconds,
    ),
  )
