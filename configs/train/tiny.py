"""The smallest run that uses everything, for tests and for a look at the files that it writes.

python -m experiments.train --config=configs/train/tiny.py --workdir=runs/tiny

2 CPU cores, 15 s, most of it start-up. Expected: a loss that falls below log(258) = 5.55.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import named


def get_config() -> ConfigDict:
  # The same as --config=tiny; its fields stand in mtjax/train/defaults.py.
  return named("tiny")


def tiny() -> ConfigDict:
  return get_config()
