r"""One network, trained for five ways to write: the models of the one-network table.

python -m experiments.train --config=configs/train/one_network.py:set_diffusion \
  --workdir=runs/one_network/set_diffusion

and so on for next_token, any_subset, masked_diffusion and block_diffusion. The five have the same
layers, text, tokenizer, optimizer and compute: a step of an objective whose frontier has twice as
many entries counts twice, so such a run has half as many steps and sees half as much text.
`experiments/diffusion/one_network.py` makes the table of them.

1 CPU core: about 4 min each. Expected: docs/benchmarks.md has their bits per byte.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings

LENGTH = 128
STEPS = 400  # of an objective that takes one entry per token
# Entries of a forward pass per token of the text.
ENTRIES = dict(
  next_token=1.0, any_subset=1.5, masked_diffusion=1.0, block_diffusion=2.0, set_diffusion=2.0
)


def get_config(objective: str = "next_token") -> ConfigDict:
  if objective not in ENTRIES:
    raise ValueError(f"the objective must be one of {', '.join(ENTRIES)}, got {objective!r}")
  config = defaults()
  config.model.update(
    vocab_size=258, dim=96, layers=4, heads=3, kv_heads=3, mlp_dim=288, max_position=256
  )
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  steps = round(STEPS / ENTRIES[objective])
  config.update(objective=objective, batch=16, length=LENGTH, steps=steps, save_every=25, keep=1)
  config.update(warmup=round(0.05 * steps), decay=round(0.4 * steps), log_every=5)
  if objective in ("masked_diffusion", "block_diffusion"):
    config.model.update(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  if objective in ("any_subset", "set_diffusion"):
    config.model.update(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  if objective == "block_diffusion":
    config.model.block_length = 16
  if objective == "set_diffusion":
    config.model.any_subset_rows = "set_diffusion"
    config.set_diffusion = objective_settings("set_diffusion", set_size=8)
  if objective == "any_subset":
    # Half of the texts have runs of targets, as the held-out middle is one, and all may be targets.
    config.any_subset = objective_settings(
      "any_subset", start=(0.05, 1.0), end=(0.05, 1.0), spans=0.5, queries=LENGTH // 2
    )
  return config


def tiny() -> ConfigDict:
  config = get_config("set_diffusion")
  config.model.update(dim=16, layers=1, head_dim=4, mlp_dim=16)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
