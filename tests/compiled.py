"""A module's functions as one program each: op by op a new shape is some twenty compilations."""

from types import ModuleType

import jax


class Compiled:
  """`Compiled(module).f` is `jax.jit(module.f)`, the same object every time."""

  def __init__(self, module: ModuleType):
    self._module = module

  def __getattr__(self, name: str):
    function = jax.jit(getattr(self._module, name))
    setattr(self, name, function)
    return function
