"""Classifier-free guidance on the bundled masked model (LLaDA 2502.09992, appendix A.1).

python -m experiments.decode --config=configs/decode/classifier_free.py --prompt="The old clock"

LLaDA's loop, with logits that move away from what the model says when the prompt is masked. A step
costs two forward passes. --config.denoise.guidance=classifier_free:scale=1 moves them further.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("classifier_free")
