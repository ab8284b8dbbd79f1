"""What rounds of each size cost on these devices, measured in the program that decodes."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.decode.adaptive import Adaptive, AdaptiveParams
from mtjax.decode.generation import generate
from mtjax.models import Model, Params

# Seconds of measurement after which `measure_costs` repeats no more than twice.
_LONG = 0.5


def measure_costs(
  model: Model,
  params: Params,
  method: Adaptive,
  drafter_params: PyTree,
  *,
  prompt: Sequence[int],
  tokens: int = 24,
  repeats: int = 3,
  mesh: Mesh | None = None,
) -> tuple[float, ...]:
  """Returns the time of a round of each of `method.parts` at batch 1, in rounds without drafts.

  Drafts and verification are included, prefill and compilation are not. Costs are data of the
  program that decodes: with a cost of nearly nothing a size is chosen in every round, and with
  infinite ones nothing is drafted. A store on the host is asked in rounds without drafts too. All
  run in turn, so that other work on the machine slows all of them, and the fastest of `repeats`
  runs of each counts; of two if these take half a second. On a mesh of several processes it is the
  clock of process 0 that counts.
  """
  count = len(method.parts)

  def run(chosen: int | None, max_tokens: int = tokens) -> tuple[float, int]:
    """Returns seconds, and the number of rounds after the first token."""
    costs = jnp.full(count, jnp.inf)
    if chosen is not None:
      costs = costs.at[chosen].set(1e-3)
    given = AdaptiveParams(costs, drafter_params)
    counters = generate(
      model, params, [prompt], method=method, method_params=given, max_tokens=max_tokens, mesh=mesh
    ).counters
    return counters["seconds"], counters["target_forwards"] - 1

  # These runs compile: the program of one token may be another one than that of `tokens`.
  for max_tokens in (1, tokens):
    run(None, max_tokens)
  turns: list[list[tuple[float, int]]] = []
  seconds = 0.0
  while len(turns) < repeats and (len(turns) < 2 or seconds < _LONG):
    turns.append([run(None, 1), *(run(chosen) for chosen in (None, *range(count)))])
    # Every process must stop after the same turn.
    seconds = hosts.agreed(seconds + sum(time for time, _ in turns[-1]), mesh)
  (first, _), *long = (min(runs) for runs in zip(*turns, strict=True))
  plain, *sizes = (max(time - first, 1e-9) / max(rounds, 1) for time, rounds in long)
  return tuple(hosts.agreed([one / plain for one in sizes], mesh))
