r"""A small byte-level model of Shakespeare with masks and uniform noise (GIDD).

python -m experiments.train --config=configs/train/uniform_diffusion.py \
  --workdir=runs/uniform_diffusion

1 CPU core: 3,900 tokens/s at a batch of 4. Expected: a loss that falls to 2.8 nats per token in the
first 40 steps (of 4 rows; single steps, which are noisy; 2026-11-28). How far it falls in a whole
run is not measured yet.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=258, dim=128, layers=4, heads=4, kv_heads=4, mlp_dim=384, max_position=1024
  )
  config.model.update(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.objective = "uniform_diffusion"
  config.uniform_diffusion = objective_settings("uniform_diffusion", noise="hybrid", share=0.1)
  config.update(batch=8, length=256, steps=600, warmup=30, decay=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
