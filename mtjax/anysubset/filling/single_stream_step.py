"""Sequential filling with a single-stream model: one entry and one token a pass, exactly cached.

The order is fixed, so when a decided entry is read, in the pass that decides the next one, its
target is final: what `mtjax.cache` asks of whatever is committed. The law is the model's joint of
the order, as with two streams; a pass reads half as many entries.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.filling.state import FillState, Problem, at_ranks, context_entries, decide
from mtjax.anysubset.network import Network
from mtjax.models import Params
from mtjax.sampling.logits import process, sample

# processed logits [B, V], entries decided [B] -> tokens [B]
Choose = Callable[[Float[Array, "B V"], Int[Array, " B"]], Int[Array, " B"]]


def start(
  model: Network, params: Params, problem: Problem, choose: Choose | None = None
) -> FillState:
  """Reads and commits the given entries of each row, and decides the first asked one."""
  canvas = problem.canvas
  batch, size = canvas.token.shape
  index, num_context = context_entries(problem)
  zero = jnp.zeros_like(num_context)
  place = jnp.broadcast_to(jnp.arange(index.shape[1], dtype=jnp.int32), index.shape)

  def at(values, index):
    return jnp.take_along_axis(values, index, axis=1)

  # Each is followed by the next given entry, and the last of them by the first asked one.
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
  )
  return _decided(problem, state, output.logits, choose)


def turn(
  model: Network, params: Params, problem: Problem, state: FillState, choose: Choose | None = None
) -> FillState:
  """Reads and commits the entry decided last, told what comes next, and decides that."""
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
  processed = process(logits, problem.rules)[:, 0]
  token = (
    sample(processed, problem.key, state.count)
    if choose is None
    else choose(processed, state.count)
  )
  one, none = jnp.ones_like(state.count), jnp.zeros_like(state.count)
  return decide(problem, state, token[:, None], one, none)
