"""The EB-sampler on the bundled masked model: entropy bounds the positions of a pass (2505.24857).

python -m experiments.decode --config=configs/decode/eb_sampler.py --prompt="The old clock"

--config.denoise.transfer=entropy_bound:gamma=0.5 allows more mutual information, and so fewer
passes.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("eb_sampler")
