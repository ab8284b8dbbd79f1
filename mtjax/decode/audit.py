"""An audit of a speculative run: acceptance of a verifier beside the optimum of all verifiers."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from mtjax.decode.method import Method
from mtjax.decode.speculative import Decision, Speculative, SpeculativeState
from mtjax.draft import Drafter, host
from mtjax.draft.model.tree_state import warm_rows
from mtjax.models import Model, Params
from mtjax.rounds.run import Stages
from mtjax.rounds.state import Request
from mtjax.trees import Topology, chain
from mtjax.types import Draft, DraftScheme, Exactness
from mtjax.verify import get_verifier
from mtjax.verify.path_bound import Paths, Sampled, exact_bounds, optimum, path_bounds

DEVIATIONS = 2.576  # standard deviations around the mean that hold 99 % of a normal distribution


@dataclasses.dataclass
class Audit:
  """A record of what was accepted in each round, and estimates of what could have been.

  `sampled`: how requests that sample draft. `node_wise`: whether the verifier judges each node
  alone, so that the optimum of 2502.18779 holds at every depth.
  """

  height: int
  sampled: Sampled
  node_wise: bool

  def __post_init__(self):
    self.accepted: list[int] = []  # accepted drafts per round
    self.bounds: list[Float[np.ndarray, "H L"]] = []  # `path_bounds` per round
    self.nodes: list[tuple[int, bool, float]] = []  # depth, accepted, optimum of nodes reached

  def report(self) -> dict[str, Any]:
    """Returns the numbers of `mtjax.report.terminal.audit_tables`.

    paths: for each depth d the share of rounds with at least d accepted drafts, the bound of all
    lossless verifiers (the smallest of `path_bounds` over levels and depths up to d), and the gap
    between them with the half-width of its 99 % interval. The last row, of depth "all", is about
    the number of accepted drafts. nodes, for node-wise verifiers: for each depth the share of nodes
    of the path after which a draft was accepted, beside the node-wise optimum (2502.18779). grown:
    whether trees grow with what was sampled, so that below depth 1 the bound says little.
    """
    paths, nodes = [], []
    if self.accepted:
      accepted = np.array(self.accepted)[:, None] > np.arange(self.height)
      bounds = self._best_bounds()
      deepest = int(np.flatnonzero(bounds.any(axis=0)).max(initial=-1)) + 1
      for d in range(deepest):
        paths.append(_row(d + 1, bounds[:, d], accepted[:, d], "bound"))
      if deepest:
        paths.append(_row("all", bounds.sum(axis=1), accepted.sum(axis=1), "bound"))
    for d in sorted({depth for depth, *_ in self.nodes}):
      rows = np.array([node[1:] for node in self.nodes if node[0] == d], float)
      nodes.append(_row(d + 1, rows[:, 1], rows[:, 0], "optimum"))
    grown = self.sampled.scheme is not DraftScheme.DELTA and self.sampled.shape is None
    return dict(paths=paths, nodes=nodes, grown=grown)

  def _best_bounds(self) -> Float[np.ndarray, "rounds H"]:
    """Returns, per depth, the smallest mean so far: d accepted drafts are d - 1 as well."""
    every = np.array(self.bounds)
    means = every.mean(axis=0)
    best = [np.unravel_index(means[: d + 1].argmin(), means.shape) for d in range(self.height)]
    return np.stack([every[:, depth, level] for depth, level in best], axis=1)


@dataclasses.dataclass(frozen=True)
class Audited(Speculative):
  """`Speculative` that tells an `Audit` what was accepted and what could have been.

  method_params are (handle of a registered Audit, the drafter's). Passes all rows of V of drafts
  that were sampled to the host and works on them there: for reports, not for speed.
  """

  def start(
    self,
    method_params: PyTree,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> SpeculativeState:
    return super().start(method_params[1], prompt, length, capacity=capacity, max_new=max_new)

  def stages(self, model: Model, params: Params, method_params: PyTree, request: Request) -> Stages:
    handle, of_drafter = method_params
    stages = super().stages(model, params, of_drafter, request)

    def commit(state, judged):
      draft, _, decision = judged
      if get_verifier(self.verifier).exactness is Exactness.GREEDY_LOSSLESS:
        best = jax.nn.one_hot(decision.processed.argmax(-1), decision.processed.shape[-1])
        decision = decision.replace(processed=jnp.log(best))
      _tell(handle, draft, decision, state.active, warm_rows(request))
      return stages["commit"](state, judged)

    return {**stages, "commit": commit}


def audited(method: Method, params: PyTree) -> tuple[Audited, PyTree, Audit]:
  """Returns a speculative method and its parameters as `Audited`, and the audit that runs fill.

  Raises ValueError for a method that is not exactly propose, verify, commit each round, and for
  verifiers that are not lossless: no bound holds for them.
  """
  if type(method) is not Speculative:
    raise ValueError(
      f"only speculative methods have an optimum to compare with, not {type(method).__name__}"
    )
  verifier = get_verifier(method.verifier)
  if verifier.exactness is Exactness.APPROXIMATE:
    name = method.verifier if isinstance(method.verifier, str) else "this verifier"
    raise ValueError(
      f"{name} changes the distribution of the text, so no bound holds for what it "
      "accepts; audit a lossless verifier"
    )
  drafter = method.drafter
  sampled = Sampled(drafter.scheme, drafter.breadth, fixed_shape(drafter))
  audit = Audit(drafter.height, sampled, node_wise=not verifier.whole_paths)
  return Audited(drafter, method.verifier), (host.register(audit), params), audit


def fixed_shape(drafter: Drafter) -> Topology | None:
  """Returns the shape of all trees of a drafter, or None where it depends on what was sampled.

  A chain may end early, for a reason that lies in the path itself.
  """
  return chain(drafter.height) if drafter.breadth == 1 else drafter.fixed_shape


def _row(depth, could, was, name) -> dict[str, Any]:
  """Returns means, and their difference with its interval.

  Given the past, a difference has a mean of at least 0: where all are 0 their sum is a martingale,
  whose variance the sample's estimates. Two more rounds, of differences 1 and -1, keep a few rounds
  from looking certain.
  """
  gaps = could - was
  variance = (np.sum((gaps - gaps.mean()) ** 2) + 2) / gaps.size
  row = {"depth": depth, "count": gaps.size, "accepted": float(was.mean())}
  error = DEVIATIONS * math.sqrt(variance / gaps.size)
  return row | {name: float(could.mean()), "gap": float(gaps.mean()), "error": error}


def _tell(handle, draft: Draft, decision: Decision, active, sampled) -> None:
  tree, path = decision.tree, decision.verdict.path
  log_p = jax.nn.log_softmax(decision.processed, axis=-1)
  row, above = jnp.arange(tree.token.shape[0])[:, None], jnp.maximum(tree.parent, 0)
  p = jnp.exp(log_p[row, above, tree.token])
  of_tree = (p, tree.token, tree.parent, tree.valid)
  count = jnp.where(active, decision.verdict.count, 0)
  is_sampled = draft.scheme is not DraftScheme.DELTA and draft.q is not None
  rows_of_v = (jnp.exp(log_p[row, path]), draft.q) if is_sampled else ()

  def on_host(audit: Audit, count, path, sampled, p, token, parent, valid, *rows_of_v):
    for row in np.flatnonzero(count):
      drafts = token[row], parent[row], valid[row], p[row]
      # Requests that do not sample draft the best tokens, whatever the drafter's scheme.
      of_v = tuple(x[row] for x in rows_of_v) if sampled[row] else ()
      _add(audit, int(count[row]), path[row], drafts, of_v)
    return np.int32(0)

  shape = jax.ShapeDtypeStruct((), jnp.int32)
  host.call(on_host, shape, handle, count, path, sampled, *of_tree, *rows_of_v)


def _add(audit: Audit, count: int, path, drafts, of_v) -> None:
  """Records one round of one row; `of_v` holds p on the path and q of sampled drafts."""
  token, parent, valid, p = drafts
  paths = Paths.of_tree(*drafts)
  children = [np.flatnonzero(valid & (parent == node)) for node in path[:count]]
  audit.accepted.append(count - 1)
  if of_v:
    on_path, q = of_v
    of_root = on_path[0], q, len(children[0])
    audit.bounds.append(path_bounds(paths, audit.height, audit.sampled, *of_root))
  else:
    audit.bounds.append(exact_bounds(paths, audit.height))
  for depth, below in enumerate(children if audit.node_wise else []):
    if below.size:
      best = float(p[below].sum())
      if of_v:
        best = optimum(on_path[depth], q[path[depth]], audit.sampled, below.size)
      audit.nodes.append((depth, count > depth + 1, best))
