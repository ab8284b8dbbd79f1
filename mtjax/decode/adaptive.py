"""Speculates while it pays: plain rounds where drafts are refused, in the same program."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.decode.generation import generate
from mtjax.decode.history import TreesObserved
from mtjax.decode.method import Autoregressive
from mtjax.decode.speculative import Decision, Speculative, SpeculativeState
from mtjax.draft import Context
from mtjax.models import Model, Params
from mtjax.rounds.run import Stages
from mtjax.rounds.state import DecodeState, Request
from mtjax.sharding import MeshLike
from mtjax.types import Draft, TokenTree

# A text that begins to repeat itself waits for at most so many rounds: 64 by default.
PATIENCE_GROWS = 4
# Seconds of measurement after which `measure_cost` repeats no more than twice.
_ENOUGH = 0.5


class AdaptiveState(struct.PyTreeNode):
  speculative: SpeculativeState
  gain: Float[Array, ""]  # tokens per row and speculative round, a running mean
  wait: Int[Array, ""]  # rounds until the next try, when speculating does not pay
  pause: Int[Array, ""]  # first value of `wait` after the next try


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """`speculative` while its running mean of tokens per round is above `cost`; else plain rounds.

  cost: time of a speculative round, in plain rounds (`measure_cost`). A round for which no row has
  a draft is a plain one. While speculating does not pay, it is tried again after `patience` rounds,
  then after twice as many, up to `PATIENCE_GROWS` times as many; the rounds between neither draft
  nor judge drafts. One choice is made per batch, from past rounds only, so exactness is that
  of `speculative`. The mean starts at `hope` and forgets with weight `memory` (SGLang's adaptive
  draft lengths use 0.2).
  """

  speculative: Speculative
  cost: float
  patience: int = 16
  memory: float = 0.2
  hope: float = 2.0

  def __post_init__(self):
    if not self.cost > 0:
      raise ValueError(f"cost must be above 0, got {self.cost}")
    if self.patience < 1:
      raise ValueError(f"patience must be at least 1, got {self.patience}")
    if not 0 < self.memory <= 1:
      raise ValueError(f"memory must be above 0 and at most 1, got {self.memory}")

  def check(self, model: Model) -> None:
    self.speculative.check(model)

  def start(
    self,
    method_params: PyTree,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> AdaptiveState:
    state = self.speculative.start(
      method_params, prompt, length, capacity=capacity, max_new=max_new
    )
    hope = max(self.hope, self.cost)
    return AdaptiveState(state, jnp.float32(hope), jnp.int32(0), jnp.int32(self.patience))

  def stages(self, model: Model, params: Params, method_params: PyTree, request: Request) -> Stages:
    """Returns propose, forward and verify at once, for one condition is about both, and commit."""
    inner = self.speculative

    def propose(state: DecodeState, _):
      kept = state.method
      context = Context(request, state.last, state.count, state.active, state.cache)
      propose, drafter = inner.drafter.propose, kept.speculative.drafter
      trying = (kept.gain >= self.cost) | (kept.wait <= 0)
      shape = jax.eval_shape(propose, method_params, drafter, context)[0]
      return jax.lax.cond(
        trying,
        lambda: propose(method_params, drafter, context),
        lambda: (_none(shape, state.last), drafter),
      )

    def decide(state: DecodeState, proposed):
      draft, drafter = proposed
      state = state.replace(method=state.method.speculative)
      drafted = jnp.any(draft.tree.valid[:, 1:] & state.active[:, None])
      decision = jax.lax.cond(
        drafted,
        lambda: inner.decide(model, params, request, state, draft),
        lambda: _padded(inner.decide(model, params, request, state, _root(draft)), draft.tree),
      )
      return draft, drafter, decision, drafted

    def commit(state: DecodeState, decided):
      *judged, drafted = decided
      kept, rows = state.method, jnp.maximum(jnp.sum(state.active), 1)
      after, observed = inner.keep(request, state.replace(method=kept.speculative), *judged)
      gained = jnp.sum(after.count - state.count) / rows
      gain = jnp.where(drafted, kept.gain + self.memory * (gained - kept.gain), kept.gain)
      tries = self.next_try(kept.wait, kept.pause, drafted, pays=gain >= self.cost)
      return after.replace(method=AdaptiveState(after.method, gain, *tries)), observed

    return {"propose": propose, "forward and verify": decide, "commit": commit}

  def observe(self, observed: PyTree) -> TreesObserved:
    return self.speculative.observe(observed)

  def next_try(
    self,
    wait: Int[Array, ""],
    pause: Int[Array, ""],
    drafted: Bool[Array, ""],
    pays: Bool[Array, ""],
  ) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns the rounds until the next try, and until the one after it."""
    # A try without a draft cost next to nothing and taught nothing.
    wait = jnp.where(drafted, pause - 1, jnp.maximum(wait - 1, 0))
    longer = jnp.minimum(2 * pause, PATIENCE_GROWS * self.patience)
    pause = jnp.where(drafted, longer, pause)
    return wait, jnp.where(pays, self.patience, pause)

  def counters(self, kept: AdaptiveState, rounds: int) -> dict[str, Any]:
    return self.speculative.counters(kept.speculative, rounds)


def measure_cost(
  model: Model,
  params: Params,
  speculative: Speculative,
  method_params: PyTree,
  *,
  prompt: Sequence[int],
  tokens: int = 24,
  repeats: int = 3,
  mesh: MeshLike = None,
) -> float:
  """Measures a round of `speculative` on these devices at batch 1, in rounds of plain decoding.

  Drafts and verification are included, prefill and compilation are not. Both run in turn, so that
  other work on the machine slows both, and the fastest of `repeats` runs of each counts; of two if
  these take half a second.
  """
  methods = (speculative, method_params), (Autoregressive(), None)
  cases = [(method, its_params, count) for method, its_params in methods for count in (1, tokens)]

  def run(method, its_params, count):
    settings = dict(method=method, method_params=its_params, max_tokens=count)
    return generate(model, params, [prompt], mesh=mesh, **settings).counters

  # The first runs compile.
  rounds = [run(*case)["target_forwards"] - 1 for case in cases]
  seconds: list[list[float]] = []
  while len(seconds) < repeats and (len(seconds) < 2 or sum(map(sum, seconds)) < _ENOUGH):
    seconds.append([run(*case)["seconds"] for case in cases])
  short, long, plain_short, plain_long = (min(times) for times in zip(*seconds, strict=True))
  speculative_round = max(long - short, 1e-9) / max(rounds[1], 1)
  return speculative_round / (max(plain_long - plain_short, 1e-9) / max(rounds[3], 1))


def _none(shape: Draft, last: Int[Array, " B"]) -> Draft:
  """Returns an empty draft of that shape."""
  draft = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
  tree = draft.tree
  root = jnp.arange(tree.size) == 0
  return draft.replace(
    tree=tree.replace(
      token=jnp.where(root, last[:, None], 0).astype(tree.token.dtype),
      parent=jnp.where(root, -1, tree.parent),
      valid=jnp.broadcast_to(root, tree.valid.shape),
    )
  )


def _root(draft: Draft) -> Draft:
  """Returns a tree of the root alone."""
  tree = draft.tree
  nodes = {name: getattr(tree, name)[:, :1] for name in ("token", "parent", "depth", "order")}
  q = None if draft.q is None else draft.q[:, :1]
  offered = None if draft.offered is None else draft.offered[:, :1]
  root = TokenTree(**nodes, valid=tree.valid[:, :1], height=0, breadth=tree.breadth)
  return draft.replace(tree=root, q=q, offered=offered)


def _padded(decision: Decision, tree: TokenTree) -> Decision:
  """Returns a decision on the root alone, in the shapes of one on the whole tree."""

  def nodes(x, axis):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, tree.size - x.shape[axis])
    return jnp.pad(x, widths)

  verdict = decision.verdict
  root = jnp.arange(tree.size) == 0
  return decision.replace(
    tree=tree.replace(valid=tree.valid & root),
    verdict=verdict.replace(path=jnp.pad(verdict.path, ((0, 0), (0, tree.height)))),
    logits=nodes(decision.logits, 1),
    processed=nodes(decision.processed, 1),
    kv=jax.tree.map(lambda x: nodes(x, 2), decision.kv),
    position=nodes(decision.position, 1),
  )
