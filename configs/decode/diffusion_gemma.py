r"""Uniform canvases as DiffusionGemma decodes them: unsure positions become noise again.

python -m experiments.decode --config=configs/decode/diffusion_gemma.py \
  --config.model=FOLDER --prompt="The old clock"

FOLDER is a DiffusionGemma that transformers saved, or a small one that
configs/train/canvas_diffusion.py trains. None is bundled: the published one has 25 billion
parameters, and mtjax computes all of its experts for every entry. A model that
configs/train/uniform_diffusion.py trains can be decoded so too.

--config.denoise.rule=accept_or_renoise:gamma=0.5 accepts more positions in a pass;
--config.denoise.rule=d3pm is ancestral sampling.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("diffusion_gemma")
