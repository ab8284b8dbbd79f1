"""Fills the asked entries of canvases: a first pass, then rounds, in one XLA program."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from mtjax.anysubset.canvas import Canvas, check_canvas
from mtjax.anysubset.filling.method import FillMethod
from mtjax.anysubset.filling.methods import SelfDraft
from mtjax.anysubset.filling.state import FillState, Problem
from mtjax.anysubset.network import Network
from mtjax.anysubset.orders import lattice, targets_in_order
from mtjax.anysubset.single_stream import check_start
from mtjax.models import Params
from mtjax.rounds import run
from mtjax.rounds.size_buckets import bucket
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sampling.logits import Sampling, Seed, row_keys


@dataclasses.dataclass(frozen=True)
class Filled:
  """The canvases, and what it cost."""

  token: Int[np.ndarray, "B L"]  # asked entries filled in
  decided_at: Int[np.ndarray, "B L"]  # forward pass that decided an entry, from 1; 0: not asked
  drafted: Bool[np.ndarray, "B L"]  # which were accepted drafts
  forwards: Int[np.ndarray, " B"]  # passes a row took part in
  counters: dict[str, Any]  # `mtjax.registry.counters.FILLING` says what each is


def fill(
  model: Network,
  params: Params,
  canvas: Canvas,
  *,
  method: FillMethod = SelfDraft(),
  rank: Int[Array | np.ndarray, "B L"] | None = None,
  sampling: Sampling | None = None,
  key: Seed = 0,
) -> Filled:
  """Draws the asked entries from the model's joint law given the given ones, in one program.

  `rank`: the order (mtjax.anysubset.orders; None: the lattice's, which the model was trained
  for). The law is that of `Sequential` in this order at these settings, as `method.exactness`
  says; `Confidence` decides the order itself, and the law is another. `sampling`: as in decoding,
  temperature 0 by default; penalties, which depend on an order, are refused. `key`: a seed or
  key, folded with the row index, or a [B] array of keys. The size, and how many entries are given
  and asked, are rounded up to those of `mtjax.rounds.size_buckets`: most other blanks cost no
  compilation.

  Raises ValueError, before compilation, for a row without an asked entry, given entries that are
  asked too or hold no token, a rank that is no order of the asked entries or beside a method that
  decides on one, settings out of their range, and any method but `Sequential` with a single-stream
  model, whose cache would be wrong.
  """
  problem, size = _prepare(model, method, canvas, rank, sampling, key)
  state, clock = run.run(_Filling(model, method), (params, problem))
  return _collect(problem, state, clock, size)


def stream(
  model: Network,
  params: Params,
  canvas: Canvas,
  *,
  method: FillMethod = SelfDraft(),
  rank: Int[Array | np.ndarray, "B L"] | None = None,
  sampling: Sampling | None = None,
  key: Seed = 0,
) -> Iterator[Filled]:
  """The rounds of `fill`, stepped from Python: yields the canvases after each.

  Open entries have `decided_at` 0. The same tokens and errors, the errors at once.
  """
  problem, size = _prepare(model, method, canvas, rank, sampling, key)
  states = run.stream(_Filling(model, method), (params, problem))
  return (_collect(problem, state, clock, size) for state, clock in states)


@dataclasses.dataclass(frozen=True)
class _Filling:
  """A `rounds.Program`: inputs are (params, problem)."""

  model: Network
  method: FillMethod

  def begin(self, inputs) -> FillState:
    return self.method.start(self.model, *inputs)

  def round(self, inputs, state: FillState) -> FillState:
    return self.method.step(self.model, *inputs, state)

  def active(self, inputs, state: FillState):
    return state.active(inputs[1])


def _prepare(model, method, canvas: Canvas, rank, sampling, key) -> tuple[Problem, int]:
  """Checks, and sizes rounded up; the size that the canvas had."""
  if method.decides_order and rank is not None:
    raise ValueError(f"{type(method).__name__} decides on the order as it fills: give no rank")
  method.check(model.config)
  check_start(model.config, canvas)
  vocab = model.config.vocab_size
  is_context, is_target = np.asarray(canvas.is_context), np.asarray(canvas.is_target)
  batch, size = is_context.shape
  if not batch:
    raise ValueError("there is no canvas")
  if not is_target.any(axis=1).all():
    raise ValueError(
      f"row {int(np.argmin(is_target.any(axis=1)))} asks for nothing: it has no blank"
    )
  check_canvas(model.config, canvas)
  order, total = targets_in_order(canvas, lattice(canvas) if rank is None else rank)
  rules = (sampling or Sampling()).rules(batch, vocab)
  if rules.needs_history:
    raise ValueError("a penalty depends on the order in which tokens come, which is not the text's")
  limit = model.config.max_position
  places = bucket(order.shape[1], maximum=limit)
  padding = ((0, 0), (0, bucket(size, maximum=limit) - size))
  order = np.pad(order, ((0, 0), (0, places - order.shape[1])), constant_values=-1)
  return Problem(
    canvas=jax.tree.map(lambda x: jnp.asarray(np.pad(np.asarray(x), padding)), canvas),
    order=jnp.asarray(np.maximum(order, 0), jnp.int32),
    total=jnp.asarray(total, jnp.int32),
    rules=rules,
    key=row_keys(key, batch),
    max_context=bucket(int(is_context.sum(axis=1).max()), maximum=limit),
  ), size


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
