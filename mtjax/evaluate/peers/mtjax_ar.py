"""Our own autoregressive decoding: whole generations in one XLA program."""

import jax
import jax.numpy as jnp

from mtjax import checkpoints
from mtjax.decode import generate
from mtjax.evaluate.peers import Text
from mtjax.models import Params
from mtjax.models.quantize import pack
from mtjax.presets import weights_for_decoding


def open_system(folder: str, threads: int, *, variant: str):
  """`xla`: plain. `stored`, `int8`: as decoding takes them. `float32`: never narrower."""
  del threads  # XLA and the native products follow the process's affinity
  model, params = checkpoints.load(folder)
  if variant == "float32":
    params = pack(off_bfloat16(params))
  elif variant != "xla":
    params = weights_for_decoding(params, variant)

  def run(prompts, job):
    job.check_greedy()
    return Text(generate(model, params, prompts, max_tokens=job.tokens).tokens)

  return run


def off_bfloat16(params: Params) -> Params:
  """float32, with one weight of each matrix off bfloat16's grid: packing keeps all 32 bits."""
  return jax.tree.map(_not_bfloat16, params)


def _not_bfloat16(x):
  if x.dtype == jnp.int8:
    return x
  x = x.astype(jnp.float32)
  return x if x.ndim < 2 else x.at[0, 0].multiply(1 + 2**-20)
