"""ReMDM on the bundled masked model: decided tokens are masked again and replaced (2503.00307).

python -m experiments.decode --config=configs/decode/remdm.py --prompt="The old clock"

Sampled at temperature 1 with nucleus 0.9, in twice as many passes as positions. Other schedules:
--config.denoise.revise=remdm_rescale:eta=0.015, remdm_conf, and remdm_loop.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("remdm")
