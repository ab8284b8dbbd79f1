r"""PC-Sampler on the bundled masked model: the left first, frequent tokens last (2508.13021).

python -m experiments.decode --config=configs/decode/pc_sampler.py --prompt="The old clock"

How frequent tokens are was counted in the bundled text. A model with another tokenizer needs a file
of its own, as docs/guides/diffusion.md shows:
--config.denoise.order=position_calibrated:decay=0.25:frequencies=FILE
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("pc_sampler")
