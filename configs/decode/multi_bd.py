r"""MultiBD: a buffer of four blocks over the exact keys of finished ones, after Diffulex.

python -m experiments.decode --config=configs/decode/multi_bd.py --config.model=runs/block_export \
  --prompt="The old clock"

A block-causal model: configs/train/block.py trains one. The machine of configs/decode/d2f.py, but
that finished blocks leave the buffer and are not computed again.
--config.denoise.machine=block_buffer:edit=0.9:stability=0.8 edits tokens of all blocks in the
buffer, and lets the next one begin when the tokens of the last are stable.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("multi_bd")
