"""The dilated scheduler DUS (2506.19037): positions of a coarse grid, then those of finer ones.

python -m experiments.decode --config=configs/decode/dilated.py --prompt="The old clock"

A block of 32 takes 5 passes, of 2, 2, 4, 8 and 16 positions. --config.denoise.transfer=llada_counts
with --config.denoise.order=halton has a number of passes that you choose, and keeps positions apart
as well.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("dilated")
