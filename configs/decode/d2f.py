r"""D2F: up to four blocks in flight, each begun before the one before is decided (2508.09192).

python -m experiments.decode --config=configs/decode/d2f.py --config.model=runs/block_export \
  --prompt="The old clock"

A block-causal model: configs/train/block.py trains one. A block begins when a tenth of the one
before is decided, and decides at least one position per pass once that has 95 % of its own.
--config.denoise.machine=pipeline:in_flight=2:add=0.5 begins later; configs/decode/multi_bd.py keeps
the keys of finished blocks.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("d2f")
