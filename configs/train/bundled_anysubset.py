r"""The bundled any-subset model."""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=320, layers=4, heads=10, kv_heads=2, head_dim=32, mlp_dim=960)
  config.model.extra_embeddings = 2
  config.update(init="target", objective="any_subset")
  config.masking.update(start=(0.05, 0.15), end=(0.05, 0.95), warmup=200, spans=0.5, queries=128)
  config.optimizer.update(name="muon", learning_rate=3e-3, muon_learning_rate=0.02)
  config.update(batch=16, length=256, steps=1100, warmup=50, decay=400)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, heads=4, head_dim=4, mlp_dim=16)
  config.masking.queries = 8
  config.update(init="", batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
