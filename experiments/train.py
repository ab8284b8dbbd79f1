"""Trains a model: python -m experiments.train --config=configs/train/tiny.py --workdir=runs/tiny

The launcher is mtjax/cli/train.py; where the package is installed, `mtjax-train` runs it.
"""

from mtjax.cli.train import entry

if __name__ == "__main__":
  entry()
