r"""Ancestral sampling of masks and uniform noise (GIDD 2503.04482, UDLM 2412.10193).

python -m experiments.decode --config=configs/decode/gidd.py --config.model=runs/uniform_export \
  --prompt="The old clock"

No such model is bundled: configs/train/uniform_diffusion.py trains one.

--config.denoise.rule=udlm is for a model of uniform noise alone, which it trains with
--config.uniform_diffusion.noise=uniform; --config.denoise.rule=accept_or_renoise decodes both as
DiffusionGemma.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("gidd")
