"""Traces of an any-subset model that fills masks, in the format of all denoising loops."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtjax.anysubset import Filled, FillMethod
from mtjax.anysubset.canvas import num_sinks, query_token
from mtjax.anysubset.filling.script import FillScript
from mtjax.anysubset.filling.state import Problem
from mtjax.anysubset.network import Network, without_mask
from mtjax.diffusion.denoising.traces import Trace, TracedPass
from mtjax.diffusion.protocols import only_written
from mtjax.models import Params
from mtjax.rounds.history import PassRecord


@dataclasses.dataclass(frozen=True)
class FilledAgain:
  """A program of traces (`Traceable`): fills canvases again, with the decisions of a trace.

  What a pass sees is exact: the keys of entries are those of the entries alone that were decided
  before them. So a log-probability is that of the token given the entries that its pass saw and, of
  a draft that was verified, given the drafts before it. In a lossless method their sum is the
  log-density of the text in its order.
  """

  network: Network
  method: FillMethod

  def replayed(self, inputs: tuple[Params, Problem], passes: TracedPass) -> Float[Array, "P B W"]:
    """Returns the log-probabilities of what the passes wrote, and 0 elsewhere.

    NaN is where the method decides something else: it then has a `start` or a `step` of its own
    that knows no `Problem.script`.
    """
    params, problem = inputs
    network, script = without_mask(self.network), self._script(problem, passes)
    problem = problem.replace(script=script, recorded=True)

    @jax.checkpoint
    def step(state, _):
      return self.method.step(network, params, problem, state), None

    state = self.method.start(network, params, problem)
    # A round makes one pass at least.
    state, _ = jax.lax.scan(step, state, length=passes.token.shape[0] - 1)
    same = (state.token == script.token) & (state.decided_at == script.decided_at)
    log_prob = jnp.where(same, jnp.asarray(state.log_prob), jnp.nan)
    index = jnp.asarray(passes.index) + num_sinks(self.network.config)
    found = jax.vmap(lambda place: jnp.take_along_axis(log_prob, place, axis=1))(index)
    return jnp.where(passes.revision.written, found, 0.0)

  def _script(self, problem: Problem, passes: TracedPass) -> FillScript:
    """Returns the decisions of the passes."""
    size, rows = problem.canvas.size, jnp.arange(passes.token.shape[1])[:, None]
    written = jnp.asarray(passes.revision.written)
    index = jnp.where(written, passes.index + num_sinks(self.network.config), size)
    number = jnp.broadcast_to(jnp.arange(len(index))[:, None, None] + 1, index.shape)

    def by_entry(values, empty):
      by_row, place = (jnp.moveaxis(x, 1, 0).reshape(len(rows), -1) for x in (values, index))
      return empty.at[rows, place].set(by_row, mode="drop")

    zero = jnp.zeros_like(problem.canvas.token)
    return FillScript(
      token=by_entry(jnp.asarray(passes.token), problem.canvas.token),
      decided_at=by_entry(number, zero),
      place=by_entry(jnp.broadcast_to(jnp.arange(index.shape[2]), index.shape), zero),
      drafted=by_entry(jnp.asarray(passes.drafted), zero > 0),
    )


def trace_of(network: Network, method: FillMethod, filled: Filled) -> Trace:
  """Returns the trace of a fill with a history; positions are those of the text, without a sink.

  Raises ValueError for one without a history.
  """
  if filled.problem is None or filled.history is None:
    raise ValueError("a trace is made of a history: fill with history=True")
  mask = query_token(network.config)
  first, canvas = num_sinks(network.config), filled.problem.canvas
  shape = filled.token.shape
  is_context, is_target = (
    np.asarray(x)[:, : shape[1]] for x in (canvas.is_context, canvas.is_target)
  )
  batch, num_passes = shape[0], int(filled.forwards.max())
  records = [list(_passes(filled, row)) for row in range(batch)]
  width = max(len(one.entries) for row in records for one in row)
  token = np.zeros((num_passes, batch, width), np.int32)
  index, log_prob = np.zeros_like(token), np.zeros(token.shape, np.float32)
  written, drafted = np.zeros(token.shape, bool), np.zeros(token.shape, bool)
  for row, of_row in enumerate(records):
    for one in of_row:
      here = (one.number - 1, row, slice(len(one.entries)))
      index[here] = np.array(one.entries, int) - first
      token[here], log_prob[here] = one.tokens, one.log_probs
      written[here], drafted[here] = True, one.drafted
  before = np.arange(num_passes)[:, None, None]
  known = is_context | ((filled.decided_at > 0) & (filled.decided_at <= before))
  end = (is_context | is_target).sum(axis=1) - first
  passes = TracedPass(
    canvas=np.where(known, filled.token, mask)[:, :, first:].astype(np.int32),
    end=np.broadcast_to(end, (num_passes, batch)).astype(np.int32),
    index=index,
    token=token,
    revision=jax.tree.map(np.asarray, jax.vmap(only_written)(jnp.asarray(written))),
    log_prob=log_prob,
    drafted=drafted,
  )
  return Trace(passes, (filled.problem,), FilledAgain(network, method), mask)


def _passes(filled: Filled, row: int) -> Iterator[PassRecord]:
  """Yields the passes of a row, first to last."""
  for record in filled.history or ():
    of_row = record.rows[row]
    if isinstance(of_row, tuple):
      yield from of_row
