"""Trains a model: mtjax-train --config=tiny --workdir=runs/tiny

--config is a file with get_config(), such as those in configs/train, or "tiny", a run of 15 seconds
that comes with the package. python -m experiments.train is the same program. --distributed makes it
one of several processes, on one machine or on many: docs/guides/multi_host.md

The same command continues a run that ended early, however it ended. Exit codes: 0, the run is
complete; 2, a mistake in the command, or a workdir that another process uses; 42, ended by SIGTERM
with every step saved; 43, another process of the job was lost; 1, another error.
"""

from absl import flags

from mtjax.cli import early_sigterm  # noqa: F401 - first: it takes effect when imported
from mtjax.cli import flags as launch
from mtjax.cli.hosts.flags import HostFlags


def _named(name: str):
  from mtjax.train.defaults import named

  return named(name)


# Flags of its own, not absl's global ones: several launchers can be imported side by side.
VALUES = flags.FlagValues()

_CONFIG = launch.define_config(VALUES, named=_named)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder for checkpoints and metrics.jsonl.", flag_values=VALUES
)
_HOSTS = HostFlags.define(VALUES)


def run() -> int:
  config = launch.required(_CONFIG, "tiny")
  workdir = launch.required(_WORKDIR, "runs/tiny")
  from mtjax import hosts

  _HOSTS.meet()
  from mtjax import train

  with hosts.ends_together():
    return train.run(config, workdir)


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, VALUES)


if __name__ == "__main__":
  entry()
