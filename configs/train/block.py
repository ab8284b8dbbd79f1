r"""The bundled block-diffusion model, 6.0 M parameters, from the bundled masked model.

python -m experiments.train --config=configs/train/block.py --workdir=runs/block \
  --config.data.sources="('file:DATA/books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:DATA/pycode/stdlib_train.jsonl.gz#weight=0.35', \
  'file:DATA/gsm8k/train.jsonl.gz#weight=0.2;text_key=Question: {question}\nAnswer: {answer}')"

python -m experiments.export --workdir=runs/block --output=mtjax/assets/models/block \
  --dtype=bfloat16 --notokenizer

The target's text and tokenizer; 0.78 M tokens, after the masked model's. 1 CPU core: 24 min at 540
tokens/s, as each token has two entries. Expected: loss 4.31 nats per token at masking rates of .2
to 1 (mean of the last 160 steps, 2026-11-29); it began at 4.36. Bounds of bits per byte on texts
that it has not seen, 4,000 bytes of each in rows of 256 tokens with 32 maskings
(experiments/evaluate.py --likelihood=monte_carlo): 2.25 (± .01) on prose, 2.13 (± .01) on
HumanEval, 1.61 (± .01) on GSM8K's test questions. The target's exact figures are 1.86, 1.93 and
1.34.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=320, layers=4, heads=10, kv_heads=2, head_dim=32, mlp_dim=960)
  config.model.update(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  config.model.update(block_length=8)
  config.update(init="masked", objective="block_diffusion")
  config.block_diffusion = objective_settings(
    "block_diffusion", schedule="clipped", window=(0.2, 1.0)
  )
  config.optimizer.update(name="muon", learning_rate=1.5e-3, muon_learning_rate=0.01)
  config.update(batch=8, length=256, steps=380, warmup=10, decay=220, save_every=50, log_every=1)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, heads=4, head_dim=4, mlp_dim=16)
  config.model.block_length = 4
  config.update(init="", batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
