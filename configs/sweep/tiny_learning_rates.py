r"""Two learning rates of the tiny training run, for tests and for a first look at a sweep.

python -m experiments.sweep --config=configs/sweep/tiny_learning_rates.py --seeds=3 --workers=2 \
  --results=runs/learning_rates
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
