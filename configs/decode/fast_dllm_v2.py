r"""Fast-dLLM v2: blocks in sub-blocks, one token of each from the commit of the one before.

python -m experiments.decode --config=configs/decode/fast_dllm_v2.py \
  --config.model=runs/shifted_block_export --prompt="The old clock"

A block-causal model with shifted logits, as one that began as a causal model is (2509.26328). The
default sub-blocks have 8 positions: they must divide the blocks of the model. A pass computes a
sub-block over old keys of the others; finished blocks have exact keys.
--config.denoise.machine=sub_blocks:sub_block=4:threshold=0.8 changes the two settings.
"""

from ml_collections import ConfigDict

from mtjax.registry.denoising.methods import denoise_config


def get_config() -> ConfigDict:
  # Every field, with its meaning, stands in mtjax/registry/denoising.
  return denoise_config("fast_dllm_v2")
