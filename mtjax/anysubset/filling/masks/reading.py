"""The parts of a pass over masks: what it reads, what it predicts, and how that is written."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import draft_entries
from mtjax.anysubset.filling.constrained import restrict
from mtjax.anysubset.filling.state import (
  FillState,
  Problem,
  context_contents,
  log_prob_of,
  no_log_prob,
)
from mtjax.anysubset.network import Network
from mtjax.cache import KVCache
from mtjax.models import Params
from mtjax.sampling.logits import process, sample
from mtjax.types import Frontier


class PassContents(NamedTuple):
  """The contents that a pass reads and commits: `count` of them, along `path`."""

  contents: Frontier
  path: Int[Array, "B T"]
  count: Int[Array, " B"]


def read_context(model: Network, problem: Problem) -> PassContents:
  """Returns what the first pass reads: the context entries, from left to right."""
  contents, count = context_contents(model.config, problem)
  path = jnp.broadcast_to(jnp.arange(contents.size), contents.token.shape)
  return PassContents(contents, path, count)


def read_newest(
  problem: Problem, state: FillState, size: int, order: Int[Array, "B L"]
) -> PassContents:
  """Returns what a later pass reads: the at most `size` entries that the one before it decided.

  They are read in ascending `order`.
  """
  newest = state.known() & (state.decided_at == state.forwards[:, None])
  newest &= state.active(problem)[:, None]
  last = jnp.iinfo(jnp.int32).max
  index = jnp.argsort(jnp.where(newest, order, last), axis=1, stable=True)[:, :size]

  def at(values):
    return jnp.take_along_axis(values, index, axis=1)

  rank = jnp.broadcast_to(jnp.arange(index.shape[1]), index.shape)
  contents = frontier_lib.content(
    at(state.token), at(problem.canvas.position), rank, valid=at(newest)
  )
  return PassContents(contents, rank, newest.sum(axis=1))


def before_first_pass(model: Network, problem: Problem, size: int) -> FillState:
  """Returns the state of open canvases; a pass commits at most `size` entries."""
  canvas = problem.canvas
  batch = canvas.token.shape[0]
  return FillState(
    cache=model.allocate(batch, max(canvas.size, size)),
    token=canvas.token,
    count=jnp.zeros((batch,), jnp.int32),
    pending=jnp.ones((batch,), bool),
    decided_at=jnp.zeros_like(canvas.token),
    drafted=jnp.zeros_like(canvas.is_context),
    forwards=jnp.zeros((batch,), jnp.int32),
    kept=None,
    log_prob=no_log_prob(problem),
    place=jnp.zeros_like(canvas.token) if problem.recorded else None,
  )


def read_masks(
  model: Network,
  params: Params,
  problem: Problem,
  state: FillState,
  cache: KVCache | None,
  reading: PassContents,
  index: Int[Array, "B P"],
) -> tuple[FillState, Float[Array, "B P V"]]:
  """Runs a pass over `reading`, which is committed, and a mask at each of the canvas indices.

  Returns the logits of the masks, not processed. An index past the canvas is of no mask.
  """
  canvas, contents = problem.canvas, reading.contents
  place = jnp.minimum(index, canvas.size - 1)
  position = jnp.take_along_axis(canvas.position, place, axis=1)
  last = jnp.full_like(index, contents.size)
  queries = draft_entries(model.config, position, last, index < canvas.size)
  frontier = frontier_lib.concatenate(contents, queries)
  rows = jnp.broadcast_to(contents.size + jnp.arange(index.shape[1]), index.shape)
  output = model.forward(params, frontier, cache, rows)
  kept = state.cache.commit(output.kv, frontier.position, reading.path, reading.count)
  return state.replace(cache=kept), output.logits


def sample_along(
  problem: Problem,
  state: FillState,
  logits: Float[Array, "B P V"],
  index: Int[Array, "B P"],
) -> tuple[Int[Array, "B P"], Float[Array, "B P V"]]:
  """Samples the tokens of a pass, and returns them with the logits that they come from.

  Each has the key of its row and its place in the canvas, which is decided once. With a constraint
  each is restricted given those before it, so that what one pass decides fits together; an index
  past the canvas is of no entry.
  """

  def one(state, xs):
    logits, index = xs
    token, known = state
    place = jnp.minimum(index, problem.canvas.size - 1)[:, None]
    logits = restrict(problem.constraint, logits[:, None], token, known, place)
    if problem.script is None:
      new = sample(process(logits, problem.rules)[:, 0], problem.key, place[:, 0])
    else:
      new = problem.script.tokens_at(place)[:, 0]
    rows = jnp.arange(len(new))
    token = token.at[rows, index].set(new, mode="drop")
    return (token, known.at[rows, index].set(True, mode="drop")), (new, logits[:, 0])

  start = (state.token, state.known())
  _, (token, logits) = jax.lax.scan(one, start, (jnp.moveaxis(logits, 1, 0), index.T))
  return token.T, jnp.moveaxis(logits, 0, 1)


def write(
  problem: Problem,
  state: FillState,
  index: Int[Array, "B P"],
  token: Int[Array, "B P"],
  logits: Float[Array, "B P V"],
) -> FillState:
  """Returns the state after a pass that decides tokens at canvas indices.

  An index past the canvas is dropped, and the others are in the order of sampling. `logits`: those
  that tokens were sampled from, not processed.
  """
  active = state.active(problem)
  index = jnp.where(active[:, None], index, problem.canvas.size)
  forwards = state.forwards + active
  rows = jnp.arange(index.shape[0])[:, None]
  log_prob, place = state.log_prob, state.place
  if place is not None:
    number = jnp.broadcast_to(jnp.arange(index.shape[1]), index.shape)
    place = place.at[rows, index].set(number, mode="drop")
  if log_prob is not None:
    log_prob = log_prob.at[rows, index].set(log_prob_of(problem, logits, token), mode="drop")
  return state.replace(
    log_prob=log_prob,
    place=place,
    token=state.token.at[rows, index].set(token, mode="drop"),
    decided_at=state.decided_at.at[rows, index].set(forwards[:, None], mode="drop"),
    count=state.count + jnp.sum(index < problem.canvas.size, axis=1, dtype=jnp.int32),
    forwards=forwards,
  )
