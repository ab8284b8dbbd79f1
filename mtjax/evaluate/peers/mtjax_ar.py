"""Our own autoregressive decoding: whole generations in one XLA program."""

import jax
import jax.numpy as jnp

from mtjax import checkpoints
from mtjax.decode import generate
from mtjax.models.quantize import pack
from mtjax.presets import weights_for_decoding


def open_system(folder: str, threads: int, variant: str):
  """`xla`: plain. `stored`, `int8`: as decoding takes them. `float32`: never narrower."""
  del threads  # XLA and the native products follow the process's affinity
  model, params = checkpoints.load(folder)
  if variant == "float32":
    # One weight of each kernel is moved off bfloat16's grid, so that packing keeps all 32 bits.
    params = pack(jax.tree.map(_not_bfloat16, params))
  elif variant != "xla":
    params = weights_for_decoding(params, variant)

  def run(prompts, tokens):
    return generate(model, params, prompts, max_tokens=tokens).tokens

  return run


def _not_bfloat16(x):
  if x.ndim < 2 or x.dtype == jnp.int8:
    return x
  return x.astype(jnp.float32).at[0, 0].multiply(1 + 2**-20)
