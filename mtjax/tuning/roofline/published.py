"""The shapes of published models by their sizes, for plans of models that are not at hand."""

import dataclasses

from mtjax.tuning.roofline.model_shape import ModelShape


def _llama(layers, width, heads, kv_heads, head_dim, mlp_width, vocab):
  return ModelShape(width, heads, kv_heads, head_dim, mlp_width, 3, vocab, (None,) * layers)


# From the configs of the models, in bfloat16.
PUBLISHED = {
  "68M": _llama(2, 768, 12, 12, 64, 3072, 32000),  # JackFram/llama-68m
  "135M": _llama(30, 576, 9, 3, 64, 1536, 49152),  # HuggingFaceTB/SmolLM2-135M
  "0.5B": _llama(24, 896, 14, 2, 64, 4864, 151936),  # Qwen/Qwen2.5-0.5B
  "1B": _llama(16, 2048, 32, 8, 64, 8192, 128256),  # meta-llama/Llama-3.2-1B
  "1.5B": _llama(28, 1536, 12, 2, 128, 8960, 151936),  # Qwen/Qwen2.5-1.5B
  "3B": _llama(28, 3072, 24, 8, 128, 8192, 128256),  # meta-llama/Llama-3.2-3B
  "4B": _llama(36, 2560, 32, 8, 128, 9728, 151936),  # Qwen/Qwen3-4B
  "7B": _llama(32, 4096, 32, 32, 128, 11008, 32000),  # meta-llama/Llama-2-7b-hf
  "8B": _llama(32, 4096, 32, 8, 128, 14336, 128256),  # meta-llama/Llama-3.1-8B
  "13B": _llama(40, 5120, 40, 40, 128, 13824, 32000),  # meta-llama/Llama-2-13b-hf
  "70B": _llama(80, 8192, 64, 8, 128, 28672, 128256),  # meta-llama/Llama-3.1-70B
  "405B": _llama(126, 16384, 128, 8, 128, 53248, 128256),  # meta-llama/Llama-3.1-405B
}


def published_shape(name: str, *, bits: int | None = None, dtype: str = "bfloat16") -> ModelShape:
  """Returns the shape of a published size, such as "7B".

  dtype: of weights, caches and arithmetic. bits: per weight as stored; None: those of `dtype`.
  Raises ValueError, with the known sizes, for others.
  """
  if name not in PUBLISHED:
    raise ValueError(f"there is no published size {name!r}: known are {', '.join(PUBLISHED)}")
  size = 4.0 if dtype == "float32" else 2.0
  return dataclasses.replace(
    PUBLISHED[name], dtype=dtype, weight_bytes=bits / 8 if bits else size, kv_bytes=size
  )
