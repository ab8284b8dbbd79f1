"""Speculative decoding: a drafter proposes a tree, one target forward judges it, a path is kept."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax import hosts, verify
from mtjax.decode.history import TreesObserved, observe_tree, target_probs
from mtjax.draft import Context, Drafter, Round
from mtjax.models import Model, Params
from mtjax.rounds import run
from mtjax.rounds import state as rounds
from mtjax.rounds.state import DecodeState, Request
from mtjax.sampling.constraint import Automata
from mtjax.sampling.logits import History, Rules, adjusted, process
from mtjax.types import Draft, LayerKV, TokenTree, Verdict


class Statistics(struct.PyTreeNode):
  """Counts of drafted and kept tokens, over all rounds; sums over the batch."""

  drafted: Int[Array, " H"]  # number of nodes at depth 1, ..., height
  accepted: Int[Array, " H"]  # accepted and emitted: none after the end of a text
  accepted_order: Int[Array, " C"]  # accepted, by place among siblings
  forwards: Int[Array, ""]  # forward passes of a draft model, one per row
  entries: Int[Array, ""]  # of target forwards, without padding


class SpeculativeState(struct.PyTreeNode):
  drafter: PyTree
  statistics: Statistics


class Forwarded(struct.PyTreeNode):
  """The forward pass of the target over a tree, before the verdict and the commit."""

  tree: TokenTree  # as it was read
  logits: Float[Array, "B N V"]
  kv: tuple[LayerKV, ...]
  position: Int[Array, "B N"]


class Decision(struct.PyTreeNode):
  """The verdict on a draft, with logits, keys and values that are not committed yet."""

  tree: TokenTree  # as it was verified
  verdict: Verdict
  logits: Float[Array, "B N V"]
  processed: Float[Array, "B N V"]  # processed logits that the draft was verified against
  kv: tuple[LayerKV, ...]
  position: Int[Array, "B N"]
  entries: Int[Array, ""]  # of the forward pass, without padding


class Kept(struct.PyTreeNode):
  """What there is to observe of a round."""

  draft: Draft
  round: Round
  rules: Rules
  history: History | None  # before the round


@dataclasses.dataclass(frozen=True)
class Speculative:
  """propose -> forward -> verify -> commit, a `mtjax.decode.Method`.

  Every emitted token follows the request's distribution at its place: penalties see the node's own
  path, temperature and filters apply to accepted drafts and to the token after them alike. The
  output keeps what the verifier promises (`mtjax.verify.VERIFIERS`). Greedy requests are verified
  greedily, whatever `verifier` is: a name of that table, or a verifier of your own.

  store: of a drafter on the host, whose handle is in the params, so that it lives as long as the
  method. Raises ValueError for a verifier that is not exact for the drafter's scheme; `check` does
  for drafts longer than the target has positions, and for what the drafter's own `check` refuses.
  """

  drafter: Drafter
  verifier: str | verify.Verifier = "sample_match"
  store: Any = dataclasses.field(default=None, compare=False, repr=False)

  def __post_init__(self):
    if isinstance(self.drafter, str):
      raise ValueError(
        f"drafter is the text {self.drafter!r}: a drafter by its name is mtjax.method(NAME), and "
        'mtjax.method("auto", of="all") chooses between those that fit the target'
      )
    verify.check_scheme(self.verifier, self.drafter.scheme, self.drafter.breadth)

  def check(self, model: Model) -> None:
    height, positions = self.drafter.height, model.config.max_position
    if height >= positions:
      raise ValueError(f"drafts of {height} tokens do not fit the target's {positions} positions")
    self.drafter.check(model)

  def start(
    self,
    method_params: PyTree,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> SpeculativeState:
    return self.state_of(self.drafter.start(method_params, prompt, length, max_new=max_new))

  def state_of(self, drafter: PyTree) -> SpeculativeState:
    """Returns the state before the first round, with a state of the drafter."""
    none = jnp.zeros((self.drafter.height,), jnp.int32)
    order = jnp.zeros((self.drafter.breadth,), jnp.int32)
    return SpeculativeState(drafter, Statistics(none, none, order, jnp.int32(0), jnp.int32(0)))

  def stages(
    self, model: Model, params: Params, method_params: Any, request: Request
  ) -> run.Stages:
    def propose(state, _):
      context = Context(request, state.last, state.count, state.active, state.cache)
      return self.drafter.propose(method_params, state.method.drafter, context)

    def forward(state, proposed):
      draft, _ = proposed
      return *proposed, self.forward(model, params, request, state, draft)

    def verify(state, forwarded):
      draft, drafter, forwarded = forwarded
      return draft, drafter, self.judge(request, state, draft, forwarded)

    def commit(state, judged):
      return self.keep(request, state, *judged)

    return {"propose": propose, "forward": forward, "verify": verify, "commit": commit}

  def observe(self, observed: "Kept") -> TreesObserved:
    draft, found = observed.draft, observed.round
    rules = observed.rules
    p = target_probs(
      found.logits, rules, _histories(observed.history, found.tree, rules.constraint)
    )
    return observe_tree(found.tree, draft.q, p, found.verdict, found.num_emitted)

  def forward(
    self, model: Model, params: Params, request: Request, state: DecodeState, draft: Draft
  ) -> "Forwarded":
    """Runs forward and verification; writes nothing."""
    tree = draft.tree
    # Deeper nodes could not be emitted; and they would stand past the model's last position.
    remaining = (request.limit - state.count)[:, None]
    tree = tree.replace(valid=tree.valid & (tree.depth <= remaining))
    frontier = frontier_lib.tree(
      tree.token, tree.parent, start=state.cache.length, valid=tree.valid
    )
    output = model.forward(params, frontier, state.cache)
    return Forwarded(tree, output.logits, output.kv, frontier.position)

  def judge(
    self, request: Request, state: DecodeState, draft: Draft, forwarded: "Forwarded"
  ) -> "Decision":
    """Returns what the verifier says of the draft; writes nothing."""
    tree, logits = forwarded.tree, forwarded.logits
    entries = jnp.sum(tree.valid & state.active[:, None])
    if draft.offered is not None:
      tree = tree.replace(valid=tree.valid & draft.offered)
    seen = _histories(state.history, tree, request.rules.constraint)
    processed = process(logits, request.rules, seen)
    name, judged = self.verifier, processed
    if request.rules.temperature is None:
      # Only argmaxes along the path are needed: the whole distribution is never computed.
      name, judged = "greedy", adjusted(logits, request.rules, seen)
    verdict = verify.verify(name, judged, draft.replace(tree=tree), request.key, state.count)
    return Decision(tree, verdict, logits, processed, forwarded.kv, forwarded.position, entries)

  def decide(
    self, model: Model, params: Params, request: Request, state: DecodeState, draft: Draft
  ) -> "Decision":
    """Forward and verification: writes nothing."""
    return self.judge(request, state, draft, self.forward(model, params, request, state, draft))

  def keep(
    self, request: Request, state: DecodeState, draft: Draft, drafter: PyTree, decision: "Decision"
  ) -> tuple[DecodeState, "Kept"]:
    """Emits and commits what was accepted; returns what there is to observe, too."""
    tree, verdict, active = decision.tree, decision.verdict, state.active
    history = state.history
    token = emitted_tokens(tree, verdict)
    state, num_emitted = rounds.emit(state, request, token, verdict.count)
    # A tree may be higher than the cache is long; what is taken always fits.
    path = verdict.path[:, : state.cache.capacity]
    cache = state.cache.commit(decision.kv, decision.position, path, num_emitted)
    found = Round(tree, verdict, token, num_emitted, decision.logits)
    drafter = self.drafter.update(drafter, found)
    statistics = _counted(state.method.statistics, draft, decision, active, num_emitted)
    state = state.replace(
      cache=cache, rounds=state.rounds + active, method=SpeculativeState(drafter, statistics)
    )
    return state, Kept(draft, found, request.rules, history)

  def counters(self, kept: SpeculativeState, rounds: int) -> dict[str, Any]:
    """Returns also drafts proposed and accepted by depth, and accepted by place among siblings."""
    statistics = jax.tree.map(hosts.whole, kept.statistics)
    return dict(
      draft_forwards=int(statistics.forwards),
      entries=int(statistics.entries),
      drafted_at_depth=statistics.drafted.tolist(),
      accepted_at_depth=statistics.accepted.tolist(),
      accepted_at_place=statistics.accepted_order.tolist(),
    )


def emitted_tokens(tree: TokenTree, verdict: Verdict) -> Int[Array, "B P"]:
  """Returns the accepted drafts, then the token after them; meaningless past verdict.count."""
  drafts = jnp.take_along_axis(tree.token, verdict.path, axis=1)[:, 1:]
  drafts = jnp.pad(drafts, ((0, 0), (0, 1)))
  is_last = jnp.arange(drafts.shape[1]) == verdict.count[:, None] - 1
  return jnp.where(is_last, verdict.token[:, None], drafts)


def _histories(
  history: History | None, tree: TokenTree, constraint: Automata | None
) -> History | None:
  """Returns the history of each node: that of the row, and the drafts from the root to the node."""
  if history is None:
    return None

  def grow(node, seen):
    # Parents stand before their children; the root is in the row's history already.
    above = jnp.take_along_axis(seen, jnp.maximum(tree.parent[:, node], 0)[:, None, None], axis=1)
    token = jnp.arange(seen.shape[2]) == tree.token[:, node, None]
    return seen.at[:, node].set(above[:, 0] | token)

  def nodes(rows):
    start = jnp.broadcast_to(rows[:, None], (rows.shape[0], tree.size, rows.shape[1]))
    return jax.lax.fori_loop(1, tree.size, grow, start)

  place = history.place
  if place is not None and constraint is not None:
    place = constraint.along(place, tree.token, tree.parent, tree.depth, tree.height)
  return History(
    None if history.seen is None else nodes(history.seen),
    None if history.generated is None else nodes(history.generated),
    place,
  )


def _counted(
  statistics: Statistics, draft: Draft, decision: Decision, active, num_emitted
) -> Statistics:
  tree, verdict = decision.tree, decision.verdict
  depths = jnp.arange(1, statistics.drafted.shape[0] + 1)
  real = tree.valid & active[:, None]
  drafted = jnp.sum(real[:, :, None] & (tree.depth[:, :, None] == depths), axis=(0, 1))
  # Where a text ends within an accepted draft, what stands after the end is dropped.
  emitted = jnp.minimum(verdict.count - 1, num_emitted)
  reached = emitted[:, None] >= depths
  order = jnp.take_along_axis(tree.order, verdict.path, axis=1)[:, 1:]
  places = jnp.arange(statistics.accepted_order.shape[0])
  by_order = jnp.sum(reached[:, :, None] & (order[:, :, None] == places), axis=(0, 1))
  return Statistics(
    drafted=statistics.drafted + drafted,
    accepted=statistics.accepted + jnp.sum(reached, axis=0),
    accepted_order=statistics.accepted_order + by_order,
    forwards=statistics.forwards
    + (0 if draft.forwards is None else jnp.sum(jnp.where(active, draft.forwards, 0))),
    entries=statistics.entries + decision.entries,
  )
