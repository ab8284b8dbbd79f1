"""The smallest run that goes through everything: for tests and for a look at the files it makes.

python -m experiments.train --config=configs/train/tiny.py --config.data.rows=rows.npz \
  --workdir=runs/tiny

2 CPU cores, 10 s, most of it compiling. Expected: a loss below log(64) = 4.16 on random tokens.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=64, dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=32, max_position=64
  )
  config.update(
    batch=4, length=16, steps=40, warmup=4, decay=10, ema=0.9, log_every=1, save_every=5
  )
  return config


def tiny() -> ConfigDict:
  return get_config()
