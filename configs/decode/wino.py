"""WINO on the bundled masked model: many tokens per pass, which later passes verify (2507.18578).

python -m experiments.decode --config=configs/decode/wino.py --prompt="The old clock"

Tokens that the rest of the text does not support are masked again. A pass costs one more entry per
position of the block: its shadow. --config.denoise.cache=prefix computes the block and what follows
it, over old keys; with --config.model=block --config.denoise.block_length=0 and
--config.denoise.cache=exact finished blocks have exact keys.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("wino")
