"""A sweep as an experiment of XManager: one work unit per run, through its own API.

https://github.com/google-deepmind/xmanager, its packages xm and xm_local. Needs the extra
`xmanager`.
"""

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from mtjax.cli.sweep.folder import FINISHED, Folder

_SCRIPT = """\
#!/bin/bash
# What a work unit of the experiment {name} runs, with --run=NUMBER.
cd {cwd} || exit 2
exec {python} -m mtjax.cli.sweep.launcher --results={results} "$@"
"""


def run_experiment(folder: Folder, workers: int) -> None:
  """Runs what has not finished as work units, `workers` at a time, on this machine.

  XManager's local executor starts a binary: a script in the folder that runs one run. A run that
  fails does not end the others. Raises ImportError, naming the extra, without xmanager.
  """
  try:
    from xmanager import xm, xm_local
  except ImportError as error:
    raise ImportError("--launch=xmanager needs xmanager: pip install 'mtjax[xmanager]'") from error

  script = _write_script(folder)
  try:
    asyncio.run(_experiment(xm, xm_local, folder, workers, script))
  except RuntimeError:
    # On leaving an experiment XManager raises it for work units that failed: their states say so.
    if all(folder.state(index).state == FINISHED for index in range(len(folder.sweep.runs))):
      raise


async def _experiment(xm: Any, xm_local: Any, folder: Folder, workers: int, script: Path) -> None:
  free = asyncio.Semaphore(workers)
  async with xm_local.create_experiment(experiment_title=folder.sweep.name) as experiment:
    (executable,) = experiment.package(
      [
        xm.Packageable(
          executable_spec=xm.Binary(path=str(script)), executor_spec=xm_local.Local.Spec()
        )
      ]
    )

    async def work_unit(index: int) -> None:
      async with free:
        job = xm.Job(executable=executable, executor=xm_local.Local(), args=dict(run=index))
        unit = await experiment.add(job)
        try:
          await unit.wait_until_complete()
        except xm.ExperimentUnitError:
          pass  # the state of the run says how it ended

    runs = range(len(folder.sweep.runs))
    await asyncio.gather(*(work_unit(i) for i in runs if folder.state(i).state != FINISHED))


def _write_script(folder: Folder) -> Path:
  path = folder.path.resolve() / "work_unit.sh"
  text = _SCRIPT.format(
    name=folder.sweep.name,
    cwd=shlex.quote(os.getcwd()),
    python=shlex.quote(sys.executable),
    results=shlex.quote(str(folder.path.resolve())),
  )
  new = path.with_suffix(".new")
  new.write_text(text, encoding="utf-8")
  new.chmod(0o755)
  os.replace(new, path)
  return path
