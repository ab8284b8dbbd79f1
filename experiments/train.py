"""Trains a model: python -m experiments.train --config=configs/train/tiny.py --workdir=runs/tiny

The same command continues a run that ended early, however it ended. Exit codes: 0 done, 2 a
mistake in the command or a workdir that is in use, 42 ended by SIGTERM with every step saved.
"""

from absl import flags

from mtjax.cli import early_sigterm  # noqa: F401 - first: it takes effect when imported
from mtjax.cli import flags as launch

_CONFIG = launch.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and metrics.jsonl go.")


def run() -> int:
  config = launch.required(_CONFIG, "configs/train/tiny.py")
  workdir = launch.required(_WORKDIR, "runs/tiny")
  from mtjax import train

  return train.run(config, workdir)


if __name__ == "__main__":
  launch.main(run)
