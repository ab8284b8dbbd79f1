"""Self-speculation on the bundled masked model: the text of LLaDA's loop in fewer forward passes.

python -m experiments.decode --config=configs/decode/lookahead.py --prompt="The old clock"

One token per pass, and one forward pass makes up to 4 passes: it also computes the canvases that
the next passes are likely to see (FreeDave 2510.00294, 2510.04147). Text and trajectory are those
of --config.denoise.lookahead=0, at any temperature; a forward pass costs that many more entries.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("lookahead")
