"""Functions as one program each: op by op a new shape is some twenty compilations."""

import os
from types import ModuleType

import jax

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
