"""The bundled draft: 0.92 M parameters, the target's tokenizer and data."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      model=dict(
        vocab_size=4096,
        dim=128,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=32,
        mlp_dim=384,
        max_position=1024,
        dtype="float32",
      ),
      objective="next_token",
      optimizer=dict(name="muon", learning_rate=5e-3, muon_learning_rate=0.02),
      data=dict(rows="rows.npz"),
      batch=8,
      length=256,
      accumulate=1,
      steps=1800,
      warmup=50,
      decay=600,
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
