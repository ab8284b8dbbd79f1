"""The Protocol of decoding methods, and plain decoding: one token per round."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.models import Model, Params
from mtjax.rounds import state as rounds
from mtjax.rounds.state import DecodeState, Request
from mtjax.sampling.categorical import argmax
from mtjax.sampling.logits import adjusted, process, sample


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

  def step(
    self, model: Model, params: Params, method_params: PyTree, request: Request, state: DecodeState
  ) -> DecodeState:
    """Runs one round: propose, forward, accept, commit. Every running row emits a token."""
    ...

  def counters(self, kept: PyTree, rounds: int) -> dict[str, Any]:
    """Returns `draft_forwards`, `entries` of all rounds (one per row and target forward)."""
    ...


@dataclasses.dataclass(frozen=True)
class Autoregressive:
  """Plain decoding: the last token is the frontier, its successor is sampled and emitted.

  Exactness.LOSSLESS by definition: other decoders are compared with this distribution.
  """

  def check(self, model):
    pass  # decodes every model

  def start(self, method_params, prompt, length, *, capacity, max_new):
    return None

  def step(self, model, params, method_params, request, state):
    frontier = frontier_lib.causal(state.last[:, None], start=state.cache.length)
    output = model.forward(params, frontier, state.cache)
    active = state.active
    cache = state.cache.commit(
      output.kv, frontier.position, jnp.zeros_like(frontier.token), active.astype(jnp.int32)
    )
    state = state.replace(cache=cache, rounds=state.rounds + active)
    return emit_next(state, request, output.logits)

  def counters(self, kept, rounds):
    return dict(draft_forwards=0, entries=rounds)


def emit_next(state, request, logits):
  if request.rules.temperature is None:
    token = argmax(adjusted(logits, request.rules, state.history)[:, 0])
  else:
    processed = process(logits, request.rules, state.history)[:, 0]
    token = sample(processed, request.key, state.count)
  return rounds.emit(state, request, token[:, None], jnp.ones_like(token))[0]
