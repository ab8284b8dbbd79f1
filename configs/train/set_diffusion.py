r"""A small byte-level Set Diffusion model of Shakespeare (2607.01775).

python -m experiments.train --config=configs/train/set_diffusion.py \
  --workdir=runs/set_diffusion

Any fixed order of such a model has one joint distribution, so that its drafts can be verified
exactly (docs/guides/infill.md).

Expected: a loss that falls. How fast, and how far, is not measured yet on any CPU.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=258, dim=128, layers=4, heads=4, kv_heads=4, mlp_dim=384, max_position=1024
  )
  config.model.update(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  config.model.any_subset_rows = "set_diffusion"
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.objective = "set_diffusion"
  config.set_diffusion = objective_settings("set_diffusion")
  config.update(batch=8, length=256, steps=600, warmup=30, decay=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
