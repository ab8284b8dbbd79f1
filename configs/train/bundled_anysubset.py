r"""The bundled any-subset model: 6.0 M parameters, beginning with the target's first four layers.

python -m experiments.train --config=configs/train/bundled_anysubset.py --workdir=runs/anysubset \
  --config.data.sources="('file:books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:pycode/stdlib_train.jsonl.gz#weight=0.35', 'file:gsm8k/train.jsonl.gz#weight=0.2;\
text_key=Question: {question}\nAnswer: {answer}')"

python -m experiments.export --workdir=runs/anysubset --output=mtjax/assets/models/anysubset \
  --dtype=bfloat16 --notokenizer

The target's text and tokenizer: children's books, Python's standard library and GSM8K train; 3.69 M
tokens seen, of which 1.8 M were targets. 2 CPU cores shared with other work: 76 min at 540 to 1,040
tokens/s. Expected: loss 3.54 nats per target token at rates of .05 to .95 (mean of the last 200
steps, 2026-11-27). It is far from done: the loss still fell.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=320, layers=4, heads=10, kv_heads=2, head_dim=32, mlp_dim=960)
  config.model.update(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  config.update(init="target", objective="any_subset")
  config.any_subset = objective_settings(
    "any_subset", start=(0.05, 0.15), end=(0.05, 0.95), warmup=200, spans=0.5, queries=128
  )
  config.optimizer.update(name="muon", learning_rate=3e-3, muon_learning_rate=0.02)
  config.update(batch=16, length=256, steps=900, warmup=50, decay=400)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, heads=4, head_dim=4, mlp_dim=16)
  config.any_subset.queries = 8
  config.update(init="", batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
