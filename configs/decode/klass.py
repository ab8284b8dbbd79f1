r"""KLASS on the bundled masked model: a token is decided when the model stays sure (2511.05664).

python -m experiments.decode --config=configs/decode/klass.py --prompt="The old clock"

A position is decided if its probability is high and its distribution moved little in the last two
passes; where there is none, the surest one is. So small a model is seldom that sure, and then every
pass decides one position: --config.denoise.transfer=klass:threshold=0.3:drift=0.5 asks for less.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("klass")
