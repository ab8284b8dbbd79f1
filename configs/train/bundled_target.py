"""The bundled target: 8.3 M parameters."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      model=dict(
        vocab_size=4096,
        dim=320,
        layers=6,
        heads=10,
        kv_heads=2,
        head_dim=32,
        mlp_dim=960,
        max_position=1024,
        dtype="float32",
      ),
      objective="next_token",
      optimizer=dict(name="muon", learning_rate=3e-3, muon_learning_rate=0.02),
      data=dict(rows="rows.npz"),
      batch=16,
      length=256,
      accumulate=1,
      steps=600,
      warmup=50,
      decay=200,
      ema=0.0,
      seed=0,
      mesh=(1, 1),
      log_every=20,
      eval_every=0,
      save_every=200,
      keep=2,
      tensorboard=False,
    )
  )
