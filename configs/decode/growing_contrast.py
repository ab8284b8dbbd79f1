"""A contrast that grows with the distance from the prompt, after M3ID (2403.14003, section 4).

python -m experiments.decode --config=configs/decode/growing_contrast.py --prompt="The old clock"

LLaDA's loop on the bundled masked model, with logits that move away from those without the prompt.
They move more at positions that are far from the prompt, so that a text does not forget it. A step
costs two forward passes.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("growing_contrast")
