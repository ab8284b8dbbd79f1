"""Names of Pallas for GPUs that moved between JAX 0.10 and 0.12."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import mosaic_gpu as plgpu

_parameters = inspect.signature(plgpu.load).parameters
# Before JAX 0.11 an index is required, from 0.12 on there is none.
_WHOLE: dict[str, Any] = {}
if "idx" in _parameters and _parameters["idx"].default is inspect.Parameter.empty:
  _WHOLE["idx"] = ...


class Registers(NamedTuple):
  """Arrays in registers, by layout; the interpreter has no layouts, nor `load` until JAX 0.11."""

  simulated: bool

  def load(self, ref: Any, layout: Any, *, optimized: bool = True) -> jax.Array:
    """Loads all of `ref`, which may be a part: ref.at[...]."""
    if self.simulated:
      return ref[...]
    return plgpu.load(ref, layout=layout, optimized=optimized, **_WHOLE)

  def full(self, shape: tuple[int, ...], value: float, layout: Any) -> jax.Array:
    """Returns an array of `value` in float32."""
    x = jnp.full(shape, value, jnp.float32)
    return x if self.simulated else plgpu.layout_cast(x, layout)

  def iota(self, shape: tuple[int, ...], axis: int, layout: Any) -> jax.Array:
    """Returns the indices along `axis` in int32."""
    return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=None if self.simulated else layout)


def interpret_params(**settings: Any) -> Any:
  """Returns settings of the interpreter of GPU kernels, which is private until JAX 0.11."""
  if hasattr(plgpu, "InterpretGPUParams"):
    return plgpu.InterpretGPUParams(**settings)
  from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

  return InterpretGPUParams(**settings)
