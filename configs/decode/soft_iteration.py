"""dInfer's soft iteration on the bundled masked model (2510.08666): masks that know something.

python -m experiments.decode --config=configs/decode/soft_iteration.py --prompt="The old clock"

To the embedding of each mask the expected embedding of what the last pass said there is added, with
a small weight that grows. The threshold for deciding falls from 1 to 0.9 in the first passes. The
bundled model was not trained on such inputs. --config.denoise.guidance=none compares.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("soft_iteration")
