r"""Runs a program with several settings and seeds:

python -m experiments.sweep --config=configs/sweep/tiny_learning_rates.py --seeds=3 --workers=2 \
  --results=runs/learning_rates

The launcher is mtjax/cli/sweep/launcher.py.
"""

from mtjax.cli.sweep.launcher import entry

if __name__ == "__main__":
  entry()
