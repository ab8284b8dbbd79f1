r"""Runs a program with several settings and seeds, and compares what they gave.

python -m experiments.sweep --config=configs/sweep/tiny_learning_rates.py --seeds=3 --workers=2 \
  --results=runs/learning_rates

--config is a file with PROGRAM (train, decode, infill or evaluate), get_config() where the program
has a config, and sweep(), which returns {flag: value} for every run; docs/guides/sweep.md has one.
--config.FIELD=VALUE changes a field in all runs; other flags of the program stand behind --, as in
-- --prompt="Once upon a time".

--results is the folder of the sweep. When all runs have ended it holds results.jsonl (one line per
run), table.md and plot.png (means over seeds); --html=FILE is a page of all three. The same command
continues a sweep that was stopped, and runs again what failed. --launch=slurm writes an array job
in place of running, and --launch=xmanager hands the runs to XManager. --collect gathers what has
finished so far.

Exit codes: 0, all runs have finished; 1, some have not, and the last line names them; 2, a mistake
in the command, or a folder in which another sweep runs or has begun.
"""

import functools
import sys
from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, results_file

# Flags of its own, not absl's global ones: several launchers can be imported side by side.
VALUES = flags.FlagValues()

_CONFIG = flags.DEFINE_string(
  "config", None, "FILE.py[:argument] with PROGRAM, sweep() and get_config().", flag_values=VALUES
)
_RESULTS = flags.DEFINE_string("results", None, "Folder of the sweep.", flag_values=VALUES)
_LAUNCH = flags.DEFINE_enum(
  "launch",
  "local",
  ["local", "slurm", "xmanager"],
  "local: run here; slurm: write an array job; xmanager: run as an experiment of XManager.",
  flag_values=VALUES,
)
_WORKERS = flags.DEFINE_integer(
  "workers", 1, "Number of runs at the same time.", lower_bound=1, flag_values=VALUES
)
_SEEDS = flags.DEFINE_integer(
  "seeds",
  None,
  "Run every setting with the seeds 0, ..., N - 1. Default: the seed of the config.",
  lower_bound=1,
  flag_values=VALUES,
)
_METRICS = flags.DEFINE_list(
  "metrics",
  [],
  "Metrics of the table and the plot, as names or patterns such as bits_per_byte/*.",
  flag_values=VALUES,
)
_HTML = flags.DEFINE_string(
  "html",
  None,
  "HTML page to write: the table, the plot and all runs.",
  flag_values=VALUES,
)
_COLLECT = flags.DEFINE_bool(
  "collect", False, "Write what has finished so far, and run nothing.", flag_values=VALUES
)
_RUN = flags.DEFINE_integer(
  "run", None, "Run this one run of a sweep that has begun; array jobs do so.", flag_values=VALUES
)

UNFINISHED_EXIT = 1


def run(passed: list[str]) -> int:
  path = Path(launch.required(_RESULTS, "runs/learning_rates"))
  if _HTML.value is None or Path(_HTML.value).absolute().parent != path.absolute():
    launch.check_output(_HTML)
  if _COLLECT.value:
    _check_alone("with --collect", passed, _RUN)
    return _collect(path)
  if _RUN.value is not None:
    _check_alone("with --run", passed, _METRICS, _HTML)
    return _run_one(path, _RUN.value)
  config = launch.required(_CONFIG, "configs/sweep/tiny_learning_rates.py")
  if path.exists() and not path.is_dir():
    raise NotADirectoryError(f"--results={path} is a file: name a folder")
  # Imported here: a mistake in the command is answered at once.
  from mtjax.cli.sweep.definition import read_sweep
  from mtjax.cli.sweep.folder import create
  from mtjax.train.lock import exclusive

  sweep = read_sweep(config, seeds=_SEEDS.value, passed=passed)
  busy = "one sweep at a time runs in a folder. Wait for it, or give another --results"
  with exclusive(path, busy=busy):
    folder = create(path, sweep)
    return dict(local=_local, slurm=_slurm, xmanager=_xmanager)[_LAUNCH.value](folder)


def _check_alone(where: str, passed: list[str], *holders: flags.FlagHolder) -> None:
  """The sweep has begun: its folder says what it runs."""
  launch.check_unused(where, _CONFIG, _LAUNCH, _WORKERS, _SEEDS, *holders)
  if passed:
    raise ValueError(f"{where}, {passed[0]} would do nothing")


def _local(folder) -> int:
  from mtjax.cli.sweep.display import make_display
  from mtjax.cli.sweep.folder import FINISHED
  from mtjax.cli.sweep.local import run_local
  from mtjax.cli.sweep.outputs import json_lines, page_of

  count = len(folder.sweep.runs)
  before = sum(folder.state(index).state == FINISHED for index in range(count))
  progress(f"{folder.sweep.name}: {count} runs, {before} of them finished before")
  with (
    results_file(str(folder.path / "results.jsonl"), dump=json_lines) as write,
    results_file(_HTML.value, dump=page_of(folder, _METRICS.value)) as write_page,
  ):
    display = make_display(folder)
    try:
      run_local(folder, _WORKERS.value, display, lambda: write(dict(runs=folder.rows())))
    except BaseException:
      write_page(dict(runs=folder.rows()))
      raise
    finally:
      display.close()
  return _reported(folder)


def _slurm(folder) -> int:
  from mtjax.cli.sweep.slurm import write_script

  script = write_script(folder, _WORKERS.value)
  progress(f"{len(folder.sweep.runs)} runs; submit them, with the options of your cluster, by")
  print(f"sbatch {script}")
  progress(f"then: python -m experiments.sweep --results={folder.path} --collect")
  return 0


def _xmanager(folder) -> int:
  from mtjax.cli.sweep.xmanager import run_experiment

  run_experiment(folder, _WORKERS.value)
  return _reported(folder)


def _run_one(path: Path, index: int) -> int:
  from mtjax.cli.sweep.folder import FINISHED, existing
  from mtjax.cli.sweep.outputs import show_failure
  from mtjax.cli.sweep.process import run_here

  folder = existing(path)
  count = len(folder.sweep.runs)
  if not 0 <= index < count:
    raise ValueError(f"--run must be in 0, ..., {count - 1}, got {index}")
  state = run_here(folder, index)
  if state.state == FINISHED:
    return 0
  show_failure(folder, index, state)
  # Ended by a signal, a process has a negative code.
  return max(state.exit_code or 0, UNFINISHED_EXIT)


def _collect(path: Path) -> int:
  from mtjax.cli.sweep.folder import existing

  return _reported(existing(path))


def _reported(folder) -> int:
  """Writes results.jsonl, table and plot; returns the exit code."""
  from mtjax.cli.sweep.outputs import json_lines, page_of, summary, write_reports

  with results_file(str(folder.path / "results.jsonl"), dump=json_lines) as write:
    write(dict(runs=folder.rows()))
  write_reports(folder, _METRICS.value)
  with results_file(_HTML.value, dump=page_of(folder, _METRICS.value)) as write_page:
    write_page(dict(runs=folder.rows()))
  unfinished = summary(folder)
  if unfinished is None:
    return 0
  progress(f"mtjax: {unfinished}; the command that began the sweep runs them again")
  return UNFINISHED_EXIT


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  own, passed = _split(sys.argv)
  sys.argv[:] = own

  @functools.wraps(run)
  def main() -> int:
    return run(passed)

  launch.main(main, VALUES)


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
  """Returns the launcher's arguments, and the program's: fields, and those behind "--"."""
  place = argv.index("--") if "--" in argv else len(argv)
  fields = [argument for argument in argv[:place] if argument.startswith("--config.")]
  own = [argument for argument in argv[:place] if argument not in fields]
  return own, [*fields, *argv[place + 1 :]]


if __name__ == "__main__":
  entry()
