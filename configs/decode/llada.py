"""LLaDA's loop on the bundled masked model: equal numbers of tokens per pass (2502.09992).

python -m experiments.decode --config=configs/decode/llada.py --prompt="The old clock"

Greedy, in blocks of 32 positions. A pass decides the positions whose sampled token is the most
probable. --config.denoise.steps=64 decides one token per pass.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("llada")
