r"""SmolLM2-135M-Instruct adapted to block diffusion by LoRA: 4.05 M of 134.5 M parameters.

python -m experiments.train --config=configs/train/smollm2_block.py --workdir=runs/smollm2_block \
  --config.data.sources="('file:DATA/books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:DATA/pycode/stdlib_train.jsonl.gz#weight=0.35', \
  'file:DATA/gsm8k/train.jsonl.gz#weight=0.2;text_key=Question: {question}\nAnswer: {answer}')"

python -m experiments.export --workdir=runs/smollm2_block --output=runs/smollm2_adapter \
  --adapter --dtype=bfloat16

With --adapter the folder holds the adapters alone, under 11 MB. Both kinds of folders are decoded
with the exact cache of finished blocks:

python -m experiments.decode --config=configs/decode/block.py --config.model=runs/smollm2_adapter \
  --prompt="The old clock"

Expected: not known. It was not trained to its end. On 1 CPU core that five programs shared, rows of
256 tokens one by one went at 11 tokens/s, in 3.4 GB (without remat); GSM8K cost 4.85 nats in the
first step.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=49152,
    dim=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp_dim=1536,
    max_position=8192,
    rope_theta=100_000.0,
  )
  config.model.norm_eps = 9.999999747378752e-06
  config.model.update(predicts="masked", alignment="shifted", block_length=8)
  config.model.update(extra_embeddings=1, extra_names=("mask",))
  # Compiled once for all layers; one layer's activations are kept at a time.
  config.model.layer_loop = "scanned"
  config.model.remat = "layer"
  config.lora.update(rank=16, alpha=32.0, trained=("extra/table",))
  config.update(init="smollm2", objective="block_diffusion")
  config.block_diffusion = objective_settings(
    "block_diffusion", schedule="clipped", window=(0.2, 1.0), anneal=1000
  )
  config.data.tokenizer = "smollm2"
  config.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.0)
  config.update(batch=2, length=256, steps=4000, warmup=50, decay=1000, save_every=50, log_every=1)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(
    vocab_size=4096, dim=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp_dim=16
  )
  config.model.update(block_length=4, max_position=64)
  config.lora.rank = 2
  config.data.tokenizer = "bundled"
  config.init = ""
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
