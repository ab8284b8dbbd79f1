r"""A small byte-level Eso-LM (B) of Shakespeare (2506.01928).

python -m experiments.train --config=configs/train/eso.py --workdir=runs/eso

Half of the tokens come by diffusion, and the rest from left to right; --config.eso.share=0.25 is
another mixture. `mtjax-infill --method=eso` samples as its authors do, and so does
--config.denoise.fill=eso of configs/decode/set.py.

CPU, one core that other programs used too: the short run below takes about a minute. Expected: its
loss falls from 3.8 nats per token at step 5 to 3.1, which is the mean of the losses that it prints
at the steps 50, 55 and 60 (2026-11-29). Each is the loss of one batch, and such losses differ by
up to half a nat. How far the loss falls in the whole run above is not measured yet.

python -m experiments.train --config=configs/train/eso.py \
  --workdir=runs/eso_short --config.steps=60 --config.warmup=3 --config.decay=20 \
  --config.batch=4 --config.length=64 --config.log_every=5
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=258, dim=128, layers=4, heads=4, kv_heads=4, mlp_dim=384, max_position=1024
  )
  config.model.update(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  config.model.any_subset_rows = "eso"
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.objective = "eso"
  config.eso = objective_settings("eso")
  config.update(batch=8, length=256, steps=600, warmup=30, decay=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
