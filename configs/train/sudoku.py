from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=96, layers=4, heads=3, kv_heads=3, head_dim=32, mlp_dim=256)
  config.model.extra_embeddings = 2
  config.objective = "any_subset"
  config.masking.update(start=(0.05, 0.7), end=(0.05, 0.7), queries=32)
  config.optimizer.update(name="muon", learning_rate=3e-3, muon_learning_rate=0.02)
  config.update(batch=16, length=128, steps=800, warmup=30, decay=400)
  return config
