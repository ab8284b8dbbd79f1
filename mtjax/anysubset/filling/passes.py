"""The forward passes of filling: which entries see which, and what is read from them.

Every pass is one frontier over the committed cache: contents (the last decided entry, if the cache
lacks it, and drafts), oracle queries (one after each content, whose logits decide), and draft
queries (for entries further ahead, whose logits the next pass drafts from). No entry sees a query,
so queries change nothing else in their pass.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtjax import frontier as frontier_lib
from mtjax.anysubset.canvas import draft_entries, query_entries
from mtjax.anysubset.filling.constrained import restrict, restrict_along
from mtjax.anysubset.filling.state import (
  FillState,
  Problem,
  at_ranks,
  context_contents,
  entries_at,
)
from mtjax.anysubset.network import Network
from mtjax.models import Params
from mtjax.sampling.logits import process
from mtjax.types import LayerKV


@dataclasses.dataclass(frozen=True)
class Phase:
  """The task of one forward pass. Static: a program is made of phases."""

  drafts: int  # number of drafted entries that it verifies
  ahead: int  # number of entries, after the one it decides, that it computes draft logits for
  bonus: bool = True  # decide one more entry when all drafts are accepted
  recalled: int = 0  # number of next entries whose draft logits are taken from the first pass


class FillPass(NamedTuple):
  """The result of a forward pass, before anything is decided."""

  logits: Float[Array, "B N V"]  # of entry count + i given i drafts; N = drafts + 1
  processed: Float[Array, "B N V"]  # the same, processed
  kv: tuple[LayerKV, ...]  # keys and values; those of the contents come first, in order
  position: Int[Array, "B T"]
  features: Float[Array, "B T D"]  # draft queries are the last (drafts + 1) * ahead entries


def first_pass(model: Network, params: Params, problem: Problem, phase: Phase) -> FillPass:
  """Reads the context, with queries for the first target and for `phase.ahead` targets after it.

  If their logits will be recalled, all targets after the first have a query. The queries see
  nothing but context: the first draft is sampled from an oracle's conditional, and no other is.
  """
  zero = jnp.zeros_like(problem.total)
  contents, _ = context_contents(model.config, problem)
  index = at_ranks(problem, zero, 1 + _ahead_at_first(problem, phase))
  queries = _draft_queries(model, problem, index, jnp.ones_like(index))
  passed = _forward(model, params, problem, None, contents, queries, oracle=1)
  token, none = problem.canvas.token, jnp.zeros_like(problem.canvas.is_target)
  logits = restrict(problem.constraint, passed.logits, token, none, index[:, :1])
  return _processed(problem, passed, logits)


def later_pass(
  model: Network,
  params: Params,
  problem: Problem,
  state: FillState,
  phase: Phase,
  draft: Int[Array, "B K"],
) -> FillPass:
  """Reads the pending entry and the drafts, with the queries that verify them.

  The oracle query of entry count + i sees the first i drafts (2504.20456, alg. 1, the second
  call). For every number a of drafts that may be accepted, `phase.ahead` draft queries of the
  entries count + a + 1, ... see the first a drafts: the verdict decides which group is used.
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
  made = _queries if size else _draft_queries
  queries = made(model, problem, *(jnp.concatenate(x, axis=1) for x in (index, rank)))
  passed = _forward(model, params, problem, state.cache, contents, queries, oracle=size + 1)
  index = entries_at(problem, state.count, size + 1)
  logits = restrict_along(
    problem.constraint, passed.logits, state.token, state.known(), index, draft
  )
  return _processed(problem, passed, logits)


def logits_at_first(
  model: Network,
  params: Params,
  problem: Problem,
  phase: Phase,
  passed: FillPass,
  state: FillState,
) -> Float[Array, "B A V"]:
  """Returns the first pass's draft logits (processed) of all target entries after the first.

  `state` is the one after the first decision.
  """
  ahead = _ahead_at_first(problem, phase)
  logits = model.read(params, passed.features[:, -ahead:])
  index = at_ranks(problem, jnp.ones_like(problem.total), ahead)
  logits = restrict(problem.constraint, logits, state.token, state.known(), index)
  processed = process(logits, problem.rules)
  # With this padding, a window that ends past the last entry is still a slice.
  return jnp.pad(processed, ((0, 0), (0, phase.recalled), (0, 0)))


def logits_recalled(state: FillState, phase: Phase) -> Float[Array, "B K V"]:
  """Returns the draft logits of the next open entries; past the last entry they are arbitrary.

  At least one entry must be decided.
  """

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
  passed: FillPass,
  accepted: Int[Array, " B"],
  state: FillState | None = None,
) -> Float[Array, "B K V"]:
  """Returns the draft logits (processed) for what follows `accepted` drafts and one more entry.

  `state`, the one after these are decided, is what a constraint needs; None: there is none.
  """
  first = passed.features.shape[1] - (phase.drafts + 1 - accepted) * phase.ahead
  place = first[:, None] + jnp.arange(phase.ahead)
  features = jnp.take_along_axis(passed.features, place[:, :, None], axis=1)
  logits = model.read(params, features)
  if state is not None:
    index = at_ranks(problem, state.count, phase.ahead)
    logits = restrict(problem.constraint, logits, state.token, state.known(), index)
  return process(logits, problem.rules)


def _forward(model, params, problem, cache, contents, queries, *, oracle) -> FillPass:
  frontier = frontier_lib.concatenate(contents, queries)
  none = jnp.zeros((frontier.batch, 0), jnp.int32)
  output = model.forward(params, frontier, cache, none)
  logits = model.read(params, output.features[:, contents.size : contents.size + oracle])
  return FillPass(logits, logits, output.kv, frontier.position, output.features)


def _processed(problem: Problem, passed: FillPass, logits: Float[Array, "B N V"]) -> FillPass:
  """Returns the pass with restricted logits, and those processed."""
  return passed._replace(logits=logits, processed=process(logits, problem.rules))


def _queries(model, problem, index, rank):
  return query_entries(model.config, _position(problem, index), rank)


def _draft_queries(model, problem, index, rank):
  return draft_entries(model.config, _position(problem, index), rank)


def _position(problem, index):
  return jnp.take_along_axis(problem.canvas.position, index, axis=1)
