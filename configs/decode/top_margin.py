"""Top-k margin on the bundled masked model (2502.06768).

python -m experiments.decode --config=configs/decode/top_margin.py --prompt="The old clock"

Two positions per pass: those where the most probable token is farthest above the second one.
--config.denoise.steps=64 decides one token per pass.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("top_margin")
