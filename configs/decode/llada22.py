r"""LLaDA2.2's loop: tokens are replaced, deleted, and get masks inserted before them.

python -m experiments.decode --config=configs/decode/llada22.py \
  --config.model=models/levenshtein_edits --prompt="The old clock" \
  --config.denoise.revise=levenshtein:delete_id=258:insert_id=259

A block-causal model whose vocabulary has two tokens that say what to do with a decided token;
configs/train/levenshtein_edits.py trains one, with these two ids, and none is bundled. The loop is
that of configs/decode/llada21.py. A block keeps its length: masks fill it, or its end is lost.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("llada22")
