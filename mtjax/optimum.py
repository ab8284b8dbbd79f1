"""How good a verifier was, beside how good any could have been: an audit of a speculative run."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mtjax.decode import Method
from mtjax.draft import Context, host
from mtjax.speculative import Decision, Speculative
from mtjax.types import Draft, DraftLaw
from mtjax.verify import optimal_acceptance


@dataclasses.dataclass
class Audit:
  """Sums by depth, over all rows and rounds: of positions that were verified with a draft there."""

  height: int

  def __post_init__(self):
    self.positions, self.accepted = np.zeros(self.height, int), np.zeros(self.height, int)
    self.optimum = np.zeros(self.height)

  def add(self, depth: int, accepted: bool, optimum: float) -> None:
    self.positions[depth] += 1
    self.accepted[depth] += accepted
    self.optimum[depth] += optimum

  def rows(self) -> list[dict[str, Any]]:
    """One a depth that was reached: share accepted, the best expected share, and the difference."""
    out = []
    for depth in np.flatnonzero(self.positions):
      count = self.positions[depth]
      accepted, optimum = self.accepted[depth] / count, self.optimum[depth] / count
      row = dict(depth=int(depth) + 1, positions=int(count), accepted=accepted, optimum=optimum)
      out.append(row | dict(gap=optimum - accepted))
    return out


@dataclasses.dataclass(frozen=True)
class Audited(Speculative):
  """`Speculative` that tells an `Audit` what was accepted and the optimum of 2502.18779 there.

  method_params are (handle of a registered Audit, the drafter's). The optimum is the largest
  acceptance of any lossless verifier at that node, given how many drafts of which law it had; for
  DELTA drafts the law's mass on them, which every exact verifier reaches. Costs a pass over the
  vocabulary on the host for every node of the path: for reports, not for speed.
  """

  def start(self, method_params, prompt, length, *, capacity, room):
    return super().start(method_params[1], prompt, length, capacity=capacity, room=room)

  def step(self, model, params, method_params, request, state):
    handle, of_drafter = method_params
    context = Context(request, state.last, state.count, state.active, state.cache)
    draft, drafter = self.drafter.propose(of_drafter, state.method.drafter, context)
    decision = self.decide(model, params, request, state, draft)
    _tell(handle, draft, decision, state.active)
    return self.keep(request, state, draft, drafter, decision)


def audited(method: Method, params: PyTree) -> tuple[Audited, PyTree, Audit]:
  """A speculative method and its parameters as `Audited`, and the audit that its runs fill.

  Raises ValueError for a method that is not exactly propose, verify, commit each round.
  """
  if type(method) is not Speculative:
    raise ValueError(
      f"only speculative methods have an optimum to compare with, not {type(method).__name__}"
    )
  audit = Audit(method.drafter.height)
  return Audited(method.drafter, method.verifier), (host.register(audit), params), audit


def _tell(handle, draft: Draft, decision: Decision, active) -> None:
  tree, path = decision.tree, decision.verdict.path

  def on_path(rows):
    return jnp.take_along_axis(rows, path[:, :, None], axis=1)

  p = jax.nn.softmax(on_path(decision.law), axis=-1)
  q = p if draft.q is None else on_path(draft.q)
  is_child = (tree.parent[:, None, :] == path[:, :, None]) & tree.valid[:, None, :]
  count = jnp.where(active, decision.verdict.count, 0)

  def on_host(audit: Audit, p, q, is_child, token, count):
    for row in range(len(count)):
      for depth in range(count[row]):
        drafts = token[row][is_child[row, depth]]
        if drafts.size:
          law = p[row, depth], q[row, depth], drafts
          audit.add(depth, count[row] > depth + 1, _optimum(*law, draft.law))
    return np.int32(0)

  shape = jax.ShapeDtypeStruct((), jnp.int32)
  host.call(on_host, shape, handle, p, q, is_child, tree.token, count)


def _optimum(p, q, drafts, law: DraftLaw) -> float:
  if law is DraftLaw.DELTA:
    return float(p[np.unique(drafts)].sum())
  return optimal_acceptance(p, q, drafts.size, law)
