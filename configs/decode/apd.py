"""APD: the masked model drafts from left to right, and a causal one says how far (2506.00413).

python -m experiments.decode --config=configs/decode/apd.py --prompt="The old clock"

Both models are bundled. Of the next 32 tokens that the masked model drafts in a pass, those are
taken that a mixture of it and the causal model would choose with the same noise, up to the first
difference. --config.denoise.mixture=0.9 takes more per pass, and 0.5 fewer.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("apd")
