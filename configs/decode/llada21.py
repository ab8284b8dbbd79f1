r"""LLaDA2.1's loop: masks above a threshold become tokens, and tokens are edited (2602.08676).

python -m experiments.decode --config=configs/decode/llada21.py --config.model=runs/block_export \
  --prompt="The old clock"

A block-causal model: configs/train/block.py trains one, and configs/train/token_edits.py one that
learns to edit. In one pass, masks whose token has a probability of at least 0.95 get it, and tokens
of the block give way to those of which the model is surer than 0.9; a block ends with a pass that
edits nothing, at most 16 after its last mask.
Quality mode is these thresholds. Speed mode lowers the first one and leaves mistakes to the edits:
--config.denoise.transfer=threshold:threshold=0.7 (the paper has no one number).
--config.denoise.revise=keep never edits.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("llada21")
