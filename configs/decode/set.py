r"""Set Diffusion's decoding of an any-subset model: masks of a sliding window (2607.01775).

python -m experiments.decode --config=configs/decode/set.py --prompt="The old clock"

On any CPU, in seconds. A pass decides every mask of the window whose best token has at least the
probability .9, so the distribution is changed. --config.denoise.fill=window:size=16 has a larger
window, for a model that was trained with larger sets. --config.denoise.fill=self drafts with the
same masks and verifies them: with --config.temperature=1 that samples the model's joint
distribution exactly, in the order that the model was trained for (--config.denoise.order names
another one). --config.denoise.fill=eso:steps=16 is the sampler of Eso-LM (2506.01928).

The bundled model is an any-subset model with queries, which are masks that see no mask.
configs/train/set_diffusion.py trains one of Set Diffusion, and checkpoints of SetDLM load as they
are.

Expected: tokens per forward pass, which the command prints; more with a lower threshold.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising/filler.py.
  return denoise_config("set")
