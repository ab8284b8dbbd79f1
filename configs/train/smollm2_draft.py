"""draft."""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=4201,
    dim=576,
    layers=2,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp_dim=512,
    max_position=8192,
    rope_theta=100_000.0,
  )
  config.model.norm_eps = 9.999999747378752e-06
  config.optimizer.update(name="muon", learning_rate=2e-3, muon_learning_rate=0.01)
  config.data.tokenizer = "runs/smollm2_trimmed"
  config.init = "runs/smollm2_trimmed"
  config.update(batch=8, length=256, steps=1800, warmup=20, decay=600)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(
    vocab_size=4096, dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=16
  )
  config.data.tokenizer = "bundled"
  config.init = ""
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
