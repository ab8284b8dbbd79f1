r"""DMax: tokens are decided anew in every pass, and seen as far as they are sure, after Diffulex.

python -m experiments.decode --config=configs/decode/dmax.py --config.model=runs/block_export \
  --prompt="The old clock"

A block-causal model: configs/train/block.py trains one, though not on inputs that are mixtures of a
token and the mask, as DMax's own are. --config.denoise.machine=token_merge:threshold=0.3 decides
more masks per pass; token_merge:in_flight=4 begins blocks early, as configs/decode/multi_bd.py.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("dmax")
