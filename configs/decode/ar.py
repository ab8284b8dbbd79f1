"""Autoregressive decoding of the bundled target: the baseline of every comparison.

python -m experiments.decode --config=configs/decode/ar.py --prompt="Once upon a time"
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      method="ar",
      model="target",  # "target", "draft", a folder, or a Hugging Face id
      dtype="",  # of weights and activations: "bfloat16", ...; "": stored weights, float32
      weights="stored",  # "stored", or "int8" (another, smaller target)
      prompt_format="text",  # or "chat": a prompt is a user's turn in the model's chat template
      max_tokens=128,
      temperature=0.0,
      top_k=0,
      top_p=1.0,
      min_p=0.0,
      repetition_penalty=1.0,
      presence_penalty=0.0,
      stop=(),  # text that ends a row, e.g. ("\n\n",)
      seed=0,
      every=4,  # rounds between two pieces of streamed text
    )
  )
