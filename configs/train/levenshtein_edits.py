r"""A small byte-level model of Shakespeare that fills masks and edits its drafts (LLaDA2.2).

python -m experiments.train --config=configs/train/levenshtein_edits.py \
  --workdir=runs/levenshtein_edits

`configs/decode/llada22.py` is the decoder of such models. The last two tokens, which no text has,
are DELETE and INSERT.

CPU, one core that other programs used too: the short run below takes about a minute. Expected: its
loss, of masks and of edits, falls from 4.7 at step 5 to 2.9, the mean of the losses that it
prints at the steps 50, 55 and 60 (2026-11-29). Each is the loss of one batch, and such losses
differ by about one. How far the loss falls in the whole run above is not measured yet.

python -m experiments.train --config=configs/train/levenshtein_edits.py \
  --workdir=runs/levenshtein_edits_short --config.steps=60 --config.warmup=3 --config.decay=20 \
  --config.batch=4 --config.length=64 --config.log_every=5
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=260, dim=128, layers=4, heads=4, kv_heads=4, mlp_dim=384, max_position=1024
  )
  config.model.update(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  config.model.block_length = 16
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.objective = "levenshtein_edits"
  config.levenshtein_edits = objective_settings("levenshtein_edits", delete_id=258, insert_id=259)
  config.update(batch=8, length=256, steps=600, warmup=30, decay=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.model.block_length = 4
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
