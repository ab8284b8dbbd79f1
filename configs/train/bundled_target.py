"""The bundled target: 8.3 M parameters.

python -m experiments.train --config=configs/train/bundled_target.py \
  --config.data.rows=rows.npz --workdir=runs/target

PLACEHOLDER
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=320, layers=6, heads=10, kv_heads=2, head_dim=32, mlp_dim=960)
  config.optimizer.update(name="muon", learning_rate=3e-3, muon_learning_rate=0.02)
  config.update(batch=16, length=256, steps=600, warmup=50, decay=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(vocab_size=64, dim=16, layers=1, heads=4, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
