r"""Two learning rates of the tiny training run, for tests and for a first look at a sweep.

python -m experiments.sweep --config=configs/sweep/tiny_learning_rates.py --seeds=3 --workers=2 \
  --results=runs/learning_rates

One CPU core: 100 s, most of it start-up. Expected: 6.63 +- 0.27 bits per byte at 0.002, and
4.72 +- 0.17 at 0.02 (mean and half of the 95 % interval over the seeds; 2026-11-28).
"""

from ml_collections import ConfigDict

from mtjax.cli.sweep.combinations import product
from mtjax.train.defaults import named

PROGRAM = "train"


def get_config() -> ConfigDict:
  config = named("tiny")
  config.data.update(eval_sources=("valid=builtin:tinyshakespeare#split=valid",), eval_bytes=2000)
  config.eval_every = 10
  return config


def sweep() -> list[dict[str, float]]:
  return product({"config.optimizer.learning_rate": [2e-3, 2e-2]})
