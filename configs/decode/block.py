r"""Block diffusion with the exact cache of finished blocks (2503.09573).

python -m experiments.decode --config=configs/decode/block.py --prompt="The old clock"

The bundled model `block` is block-causal: configs/train/block.py trains it.

A causal model that was adapted to blocks (configs/train/smollm2_block.py) is decoded likewise:
--config.model=FOLDER with a folder of its adapters.

A pass computes the current block alone. --config.denoise.cache=none gives the same text, slower;
--config.denoise.order=random with --config.denoise.transfer=first_hitting and
--config.temperature=1 samples the model's distribution exactly.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("block")
