"""Functions as one program each: op by op a new shape is some twenty compilations."""

import functools
import os
from collections.abc import Sequence
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from mtjax import frontier as builders

# `make test` asks XLA for code that is compiled quickly. Of programs that run for seconds the code
# must be quick too: these options of `jax.jit` save most of that, and cost little.
RUNS_LONG = (
  {"xla_backend_optimization_level": 1}
  if "--xla_backend_optimization_level=0" in os.environ.get("XLA_FLAGS", "")
  else None
)


class Compiled:
  """`Compiled(module).f` is `jax.jit(module.f)`, the same object every time."""

  def __init__(self, module: ModuleType):
    self._module = module

  def __getattr__(self, name: str):
    function = jax.jit(getattr(self._module, name))
    setattr(self, name, function)
    return function


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, frontier, cache=None, rows=None):
  """Returns what `model.forward` does, as one program for a model and shapes."""
  return model.forward(params, frontier, cache, rows)


def causal_logits(model, params, tokens: Sequence[int], size: int = 64) -> np.ndarray:
  """Returns the logits [T, V] of one text; all texts of up to `size` tokens share a program."""
  padded = np.zeros((1, size), np.int32)
  padded[0, : len(tokens)] = tokens
  return np.asarray(forward(model, params, builders.causal(jnp.asarray(padded))).logits)[
    0, : len(tokens)
  ]
