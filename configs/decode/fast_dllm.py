"""Fast-dLLM on the bundled masked model: all positions above a threshold (2505.22618).

python -m experiments.decode --config=configs/decode/fast_dllm.py --prompt="The old clock"

Keys of the text before a block are those of the block's first pass ("prefix"): an approximation.
--config.denoise.cache=dual keeps those after the block too; --config.denoise.cache=none is exact.
--config.denoise.transfer=threshold:threshold=0.8 decides more positions per pass, and
--config.denoise.transfer=factor:factor=1 as many as their lowest confidence allows.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("fast_dllm")
