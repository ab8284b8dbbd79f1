"""The forward passes of filling: who sees whom, and what is read from them.

Every pass is one frontier over the committed cache: contents (the last decided entry, if the cache
lacks it, and drafts), oracle queries (one after each content: the law that decides), and draft
queries (laws of entries further ahead, to draft from in the next pass). Queries are nobody's keys,
so they change nothing that they ride with.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import query_token
from mtjax.anysubset.filling.state import FillState, Problem, at_ranks, context_contents
from mtjax.anysubset.network import Network
from mtjax.models import Params
from mtjax.sampling.logits import process
from mtjax.types import LayerKV


@dataclasses.dataclass(frozen=True)
class Phase:
  """What one forward pass is for. Static: a program is made of phases."""

  drafts: int  # drafted entries that it verifies
  ahead: int  # entries after the one it decides that it makes draft laws of
  bonus: bool = True  # decide one more entry when all drafts are accepted
  recalled: int = 0  # entries to come whose draft laws are those of the first pass, read again


class Pass(NamedTuple):
  """What came of a forward pass, before anything is decided."""

  processed: Float[
    Array, "B N V"
  ]  # processed logits of entry count + i given i drafts; N = drafts + 1
  kv: tuple[LayerKV, ...]  # of the contents first, in order
  position: Int[Array, "B T"]
  features: Float[Array, "B T D"]  # draft queries are the last (drafts + 1) * ahead entries


def first_pass(model: Network, params: Params, problem: Problem, phase: Phase) -> Pass:
  """Reads the given entries, and the laws of the first asked one and of `phase.ahead` after it.

  Where they will be recalled, of all after it. All that the queries see is given: a first draft law
  is an oracle law, and the only one that is.
  """
  zero = jnp.zeros_like(problem.total)
  contents, _ = context_contents(problem)
  index = at_ranks(problem, zero, 1 + _ahead_at_first(problem, phase))
  queries = _queries(model, problem, index, jnp.ones_like(index))
  return _forward(model, params, problem, None, contents, queries, oracle=1)


def later_pass(
  model: Network,
  params: Params,
  problem: Problem,
  state: FillState,
  phase: Phase,
  draft: Int[Array, "B K"],
) -> Pass:
  """Reads the pending entry and the drafts, and the laws that verify them.

  The oracle query of entry count + i sees the first i drafts (2504.20456, alg. 1, the second
  call). For every number a of drafts that may be accepted, `phase.ahead` draft queries of the
  entries count + a + 1, ... see the first a drafts: which of the groups is of use turns out later.
  """
  size = phase.drafts
  index = at_ranks(problem, state.count - 1, size + 1)
  last = jnp.take_along_axis(state.token, index[:, :1], axis=1)
  place = jnp.arange(size + 1)
  open_ = state.count[:, None] + place - 1 < problem.total[:, None]
  contents = frontier_lib.content(
    jnp.concatenate([last, draft], axis=1),
    _position(problem, index),
    jnp.broadcast_to(place, index.shape),
    valid=jnp.where(place == 0, state.pending[:, None], open_),
  )
  oracle = at_ranks(problem, state.count, size + 1)
  index, rank = [oracle], [jnp.broadcast_to(place + 1, oracle.shape)]
  if phase.ahead:
    for accepted in range(size + 1):
      group = at_ranks(problem, state.count + accepted + 1, phase.ahead)
      index.append(group)
      rank.append(jnp.full_like(group, accepted + 1))
  queries = _queries(model, problem, *(jnp.concatenate(x, axis=1) for x in (index, rank)))
  return _forward(model, params, problem, state.cache, contents, queries, oracle=size + 1)


def logits_at_first(
  model: Network, params: Params, problem: Problem, phase: Phase, passed: Pass
) -> Float[Array, "B A V"]:
  """The draft laws (processed logits) of all asked entries after the first, of the first pass."""
  features = passed.features[:, -_ahead_at_first(problem, phase) :]
  processed = process(model.read(params, features), problem.rules)
  # So that a window that ends past the last entry is still a slice.
  return jnp.pad(processed, ((0, 0), (0, phase.recalled), (0, 0)))


def logits_recalled(state: FillState, phase: Phase) -> Float[Array, "B K V"]:
  """Those of the next open entries; some entry is decided, and any law stands past the last."""

  def window(processed, count):
    return jax.lax.dynamic_slice_in_dim(processed, count - 1, phase.recalled)

  return jax.vmap(window)(jnp.asarray(state.first), state.count)


def _ahead_at_first(problem, phase):
  return max(problem.order.shape[1] - 1, 1) if phase.recalled else phase.ahead


def logits_ahead(
  model: Network,
  params: Params,
  problem: Problem,
  phase: Phase,
  passed: Pass,
  accepted: Int[Array, " B"],
) -> Float[Array, "B K V"]:
  """The draft laws (processed logits) for what follows `accepted` drafts and one more entry."""
  first = passed.features.shape[1] - (phase.drafts + 1 - accepted) * phase.ahead
  place = first[:, None] + jnp.arange(phase.ahead)
  features = jnp.take_along_axis(passed.features, place[:, :, None], axis=1)
  return process(model.read(params, features), problem.rules)


def _forward(model, params, problem, cache, contents, queries, *, oracle) -> Pass:
  frontier = frontier_lib.concatenate(contents, queries)
  rows = jnp.broadcast_to(contents.size + jnp.arange(oracle), (frontier.batch, oracle))
  output = model.forward(params, frontier, cache, rows)
  processed = process(output.logits, problem.rules)
  return Pass(processed, output.kv, frontier.position, output.features)


def _queries(model, problem, index, rank):
  token = jnp.full_like(index, query_token(model.config))
  return frontier_lib.query(token, _position(problem, index), rank)


def _position(problem, index):
  return jnp.take_along_axis(problem.canvas.position, index, axis=1)
