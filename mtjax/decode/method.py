"""The Protocol of decoding methods, and plain decoding: one token per round."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.decode.history import TreesObserved, observe_token, target_probs
from mtjax.models import Model, Params
from mtjax.rounds import state as rounds
from mtjax.rounds.run import Stages
from mtjax.rounds.state import DecodeState, Request
from mtjax.sampling.logits import best_tokens, process, sample


@runtime_checkable
class Method(Protocol):
  """One way to run a round. Frozen and hashable: a static argument of the one program."""

  def check(self, model: Model) -> None:
    """Raises ValueError, before compilation, for a target that it cannot decode."""
    ...

  def start(
    self,
    method_params: PyTree,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> PyTree:
    """Returns the state of the method (`DecodeState.method`) after the prompts."""
    ...

  def stages(self, model: Model, params: Params, method_params: PyTree, request: Request) -> Stages:
    """Returns the parts of a round, such as propose, forward, verify, commit.

    One after the other they take a DecodeState to the next one: at least one token is emitted in a
    running row.
    """
    ...

  def observe(self, observed: PyTree) -> TreesObserved:
    """Returns what the last stage observed as trees, one per row, for a history.

    It runs only where a history is asked for, so what it computes costs nothing otherwise.
    """
    ...

  def counters(self, kept: PyTree, rounds: int) -> dict[str, Any]:
    """Returns `draft_forwards`, `entries` of all rounds (one per row and target forward)."""
    ...


@dataclasses.dataclass(frozen=True)
class Autoregressive:
  """Plain decoding: the last token is the frontier, its successor is sampled and emitted.

  Exactness.LOSSLESS by definition: other decoders are compared with this distribution.
  """

  def check(self, model: Model) -> None:
    pass  # decodes every model

  def start(
    self,
    method_params: PyTree,
    prompt: Int[Array, "B P"],
    length: Int[Array, " B"],
    *,
    capacity: int,
    max_new: int,
  ) -> None:
    return None

  def stages(self, model: Model, params: Params, method_params: PyTree, request: Request) -> Stages:
    def forward(state, _):
      frontier = frontier_lib.causal(state.last[:, None], start=state.cache.length)
      return frontier, model.forward(params, frontier, state.cache)

    def commit(state, forwarded):
      frontier, output = forwarded
      active = state.active
      cache = state.cache.commit(
        output.kv, frontier.position, jnp.zeros_like(frontier.token), active.astype(jnp.int32)
      )
      after = state.replace(cache=cache, rounds=state.rounds + active)
      after = emit_next(after, request, output.logits)
      return after, (state, after, request.rules, output.logits)

    return {"forward": forward, "commit": commit}

  def observe(self, observed: PyTree) -> TreesObserved:
    before, after, rules, logits = observed
    p = target_probs(logits, rules, before.history)
    return observe_token(before.last, before.active, after.last, p)

  def counters(self, kept: None, rounds: int) -> dict[str, Any]:
    return dict(draft_forwards=0, entries=rounds)


def emit_next(state: DecodeState, request: Request, logits: Float[Array, "B 1 V"]) -> DecodeState:
  """Emits one token a row, from the logits after the last one."""
  if request.rules.temperature is None:
    token = best_tokens(logits, request.rules, state.history)[:, 0]
  else:
    processed = process(logits, request.rules, state.history)[:, 0]
    token = sample(processed, request.key, state.count)
  return rounds.emit(state, request, token[:, None], jnp.ones_like(token))[0]
