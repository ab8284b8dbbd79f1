r"""A small byte-level DiffusionGemma of Shakespeare: canvases of random tokens after causal text.

python -m experiments.train --config=configs/train/canvas_diffusion.py \
  --workdir=runs/canvas_diffusion
python -m experiments.export --workdir=runs/canvas_diffusion --output=FOLDER
python -m experiments.decode --config=configs/decode/diffusion_gemma.py \
  --config.model=FOLDER --prompt="ROMEO:"

1 CPU core that other programs shared: 240 tokens/s at a batch of 8. Expect a loss that falls from
3.9 to 2.2 nats per token of canvases in the first 60 steps (single steps, which are noisy;
2026-11-29). How far it falls in a whole run, and its speed on a core of its own, are not measured
yet.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import canvas_model, defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model = canvas_model()
  config.model.update(vocab_size=258, canvas_length=16)
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.objective = "canvas_diffusion"
  config.canvas_diffusion = objective_settings("canvas_diffusion")
  config.update(batch=8, length=256, steps=600, warmup=30, decay=200)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp_dim=16)
  config.model.update(experts=2, top_experts=1, expert_dim=8, canvas_length=4, window=6)
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
