"""A sweep as an array job of Slurm: one element per run."""

import os
import shlex
import sys
from pathlib import Path

from mtjax.cli.sweep.definition import described
from mtjax.cli.sweep.folder import Folder

_SCRIPT = """\
#!/bin/bash
# The runs of a sweep, one per element of the array. A run that has finished ends at once, and one
# that was stopped goes on, so the same file may be submitted again, and Slurm may requeue it.
#
{runs}
#
#SBATCH --job-name={name}
#SBATCH --array=0-{last}%{workers}
#SBATCH --output={folder}/slurm/%A_%a.txt
#SBATCH --open-mode=append
#SBATCH --requeue
# SIGTERM two minutes before the time limit: training saves its state.
#SBATCH --signal=B:TERM@120

cd {cwd} || exit 2
exec {python} -m mtjax.cli.sweep.launcher --results={results} --run="$SLURM_ARRAY_TASK_ID"
"""


def write_script(folder: Folder, workers: int) -> Path:
  """Writes sweep.sbatch into the folder of a sweep and returns its path.

  Raises ValueError for a folder whose name Slurm cannot hold in a line of #SBATCH.
  """
  path = folder.path.resolve()
  if any(letter in str(path) for letter in " %\"'\\\n"):
    raise ValueError(f"Slurm needs a folder without spaces, quotes and %: got {str(path)!r}")
  (path / "slurm").mkdir(exist_ok=True)
  runs = enumerate(folder.sweep.runs)
  text = _SCRIPT.format(
    name=shlex.quote(folder.sweep.name),
    runs="\n".join(f"# {index}: {described(run)}" for index, run in runs),
    last=len(folder.sweep.runs) - 1,
    workers=workers,
    folder=path,
    cwd=shlex.quote(os.getcwd()),
    python=shlex.quote(sys.executable),
    results=shlex.quote(str(path)),
  )
  script = path / "sweep.sbatch"
  new = script.with_suffix(".new")
  new.write_text(text, encoding="utf-8")
  os.replace(new, script)
  return script
