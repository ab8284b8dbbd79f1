"""Sequential filling with a single-stream model: one entry and one token per pass, exactly cached.

The order is fixed, so when a decided entry is read, in the pass that decides the next one, its
target is final, as `mtjax.cache` requires of all that is committed. The distribution is the model's
joint in the order, as with two streams; a pass reads half as many entries.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.filling.constrained import restrict
from mtjax.anysubset.filling.state import (
  FillState,
  Problem,
  at_ranks,
  context_entries,
  decide,
  no_log_prob,
)
from mtjax.anysubset.network import Network
from mtjax.models import Params
from mtjax.sampling.logits import process, sample

# processed logits [B, V], number of decided entries [B] -> tokens [B]
Choose = Callable[[Float[Array, "B V"], Int[Array, " B"]], Int[Array, " B"]]


def start(
  model: Network, params: Params, problem: Problem, choose: Choose | None = None
) -> FillState:
  """Reads and commits the context entries of each row, and decides the first target."""
  canvas = problem.canvas
  batch, size = canvas.token.shape
  index, num_context = context_entries(problem)
  zero = jnp.zeros_like(num_context)
  place = jnp.broadcast_to(jnp.arange(index.shape[1], dtype=jnp.int32), index.shape)

  def at(values, index):
    return jnp.take_along_axis(values, index, axis=1)

  # Each is followed by the next context entry, and the last of them by the first target.
  following = jnp.where(
    place + 1 == num_context[:, None], at_ranks(problem, zero, 1), jnp.roll(index, -1, axis=1)
  )
  contents = frontier_lib.content(
    at(canvas.token, index), at(canvas.position, index), place, valid=place < num_context[:, None]
  ).replace(target=at(canvas.position, following))
  output = model.forward(params, contents, None, num_context[:, None] - 1)
  state = FillState(
    cache=model.allocate(batch, size).commit(output.kv, contents.position, place, num_context),
    token=canvas.token,
    count=zero,
    pending=jnp.ones((batch,), bool),
    decided_at=jnp.zeros_like(canvas.token),
    drafted=jnp.zeros_like(canvas.is_context),
    forwards=zero,
    kept=None,
    log_prob=no_log_prob(problem),
  )
  return _decided(problem, state, output.logits, choose)


def step(
  model: Network, params: Params, problem: Problem, state: FillState, choose: Choose | None = None
) -> FillState:
  """Reads and commits the entry decided last, with the next position as target, and decides it."""
  active = state.active(problem)
  both = at_ranks(problem, state.count - 1, 2)
  position = jnp.take_along_axis(problem.canvas.position, both, axis=1)
  token = jnp.take_along_axis(state.token, both[:, :1], axis=1)
  entry = frontier_lib.content(token, position[:, :1], jnp.zeros_like(token))
  output = model.forward(params, entry.replace(target=position[:, 1:]), state.cache)
  cache = state.cache.commit(
    output.kv, entry.position, jnp.zeros_like(token), active.astype(jnp.int32)
  )
  return _decided(problem, state.replace(cache=cache), output.logits, choose)


def _decided(problem, state, logits, choose) -> FillState:
  index = at_ranks(problem, state.count, 1)
  logits = restrict(problem.constraint, logits, state.token, state.known(), index)
  processed = process(logits, problem.rules)
  next_logits = processed[:, 0]
  if problem.script is not None:
    token = problem.script.tokens_at(index)[:, 0]
  elif choose is None:
    token = sample(next_logits, problem.key, state.count)
  else:
    token = choose(next_logits, state.count)
  one, none = jnp.ones_like(state.count), jnp.zeros_like(state.count)
  return decide(problem, state, token[:, None], one, none, logits)
