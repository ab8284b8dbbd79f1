r"""Steps, block length, temperature and remasking of a masked model: the text that they give.

python -m experiments.sweep --config=configs/sweep/denoise.py --results=runs/denoise --workers=2

The bundled target judges the text. Bits per byte may be compared only where the entropy is near
another's: text that repeats itself has few bits per byte and a low entropy. Rules that mask tokens
again (ReMDM 2503.00307) need the transfer rule `ancestral`, which all runs have; `keep` masks none.
--config.model=FOLDER is another masked model, --config.denoise.length=128 a longer canvas.

Any CPU: 50 minutes on a fifth of one core, which other work shared. Expected: at temperature 1 from
2.1 to 2.5 bits per byte with 16 passes and from 1.9 to 2.1 with 128, at entropies of 5.4 to 5.6; at
0.7 both are lower (1.4 to 1.8 bits per byte at 4.7 to 5.1). One run per setting (2026-11-29).
"""

from ml_collections import ConfigDict

from mtjax.cli.sweep.combinations import product
from mtjax.registry.denoising.methods import denoise_config

PROGRAM = "decode"
PROMPTS = (
  "The old clock struck nine, and the children",
  "It was late in the evening when he",
  "She opened the door of the little house and",
  "There was once a king who had",
  "In the morning the snow lay deep, and",
  "The captain looked at the sea and said",
  "My father used to tell me that",
  "Far away, beyond the hills, there lived",
)


def get_config() -> ConfigDict:
  config = denoise_config("remdm")
  config.denoise.length = 64
  return config


def sweep() -> list[dict[str, object]]:
  runs = product(
    {
      "config.denoise.steps": [16, 32, 64, 128],
      "config.denoise.block_length": [16, 64],
      "config.temperature": [0.7, 1.0],
      "config.denoise.revise": ["keep", "remdm_cap:eta=0.02"],
    }
  )
  return [one | dict(prompt=PROMPTS, judge="target") for one in runs]
