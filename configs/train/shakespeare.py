"""A small byte-level model of Shakespeare: something to see learn while a coffee cools.

python -c "from mtjax.train.rows import store_rows; \
  text = open('input.txt', 'rb').read(); store_rows('rows.npz', [text[:-50_000]], end=0); \
  open('valid.txt', 'wb').write(text[-50_000:])"
python -m experiments.train --config=configs/train/shakespeare.py --workdir=runs/shakespeare \
  --config.data.rows=rows.npz --config.data.eval_texts="('valid=valid.txt',)"

PLACEHOLDER
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=256, dim=128, layers=4, heads=4, kv_heads=4, mlp_dim=384, max_position=256
  )
  config.update(batch=8, length=256, steps=600, warmup=30, decay=200, eval_every=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
