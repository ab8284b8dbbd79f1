r"""KLASS on the bundled masked model: it decides the tokens of which the model stays sure.

python -m experiments.decode --config=configs/decode/klass.py --prompt="The old clock"

KLASS (2511.05664) decides a position if its probability is high and its distribution hardly moved
in the last two passes. If there is no such position, it decides the most probable one. So small a
model is seldom that sure, and then every pass decides one position:
--config.denoise.transfer=klass:threshold=0.3:drift=0.5 asks for less.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("klass")
