"""The bundled masked model drafts for the bundled target, all drafts in one pass (2408.05636).

python -m experiments.decode --config=configs/decode/canvas.py --prompt="Once upon a time"

The text has the distribution of plain decoding. What it saves is not measured yet.
"""

from ml_collections import ConfigDict

from mtjax.registry.configs import decode_config


def get_config() -> ConfigDict:
  # config.draft_model: a masked model with the target's tokenizer, by name, folder or id.
  # config.drafter: length and confidence of mtjax.draft.ModelCanvas.
  return decode_config("canvas")
