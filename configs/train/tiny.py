"""The smallest run that goes through everything: for tests and for a look at the files it makes.

python -m experiments.train --config=configs/train/tiny.py --workdir=runs/tiny

2 CPU cores, 15 s, most of it start-up. Expected: a loss that falls below log(258) = 5.55.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=258, dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=32, max_position=64
  )
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.update(
    batch=4, length=16, steps=40, warmup=4, decay=10, ema=0.9, log_every=1, save_every=5
  )
  return config


def tiny() -> ConfigDict:
  return get_config()
