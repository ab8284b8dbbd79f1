"""Our own autoregressive decoding: whole generations in one XLA program."""

from mtjax import checkpoints
from mtjax.bench.systems import Run, SystemText
from mtjax.bench.systems.exported import off_bfloat16, to_bfloat16
from mtjax.decode.generation import generate
from mtjax.pretrained import pack_if_useful, weights_for_decoding


def open_system(folder: str, threads: int, *, variant: str) -> Run:
  """Opens the model.

  variant: "stored" and "int8" are as in decoding; "float32" is never narrower, "bfloat16" rounds
  the weights and computes in float32 with them; "xla" does not use the native product.
  """
  del threads  # XLA and the native products follow the process's affinity
  model, params = checkpoints.load(folder)
  if variant == "float32":
    model, params = pack_if_useful(model, off_bfloat16(params))
  elif variant == "bfloat16":
    model, params = weights_for_decoding(model, to_bfloat16(params), "stored")
  elif variant != "xla":
    model, params = weights_for_decoding(model, params, variant)

  def run(prompts, job):
    job.check_greedy()
    return SystemText(generate(model, params, prompts, max_tokens=job.tokens).tokens)

  return run
