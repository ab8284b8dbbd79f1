"""The table, the reason, the pictures and the files of plans."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtjax.report import results
from mtjax.report.plans import TunedPlan, figure, plan_table
from mtjax.report.plotting import check_suffix
from mtjax.tuning.plan_file import save_plan


def batches(given: Sequence[str]) -> list[int]:
  """Returns the batch sizes of a flag. Raises ValueError for what is none, and for duplicates."""
  try:
    out = [int(one) for one in given]
  except ValueError:
    raise ValueError(f"--batch must be whole numbers, got {','.join(given)}") from None
  if not out or min(out) < 1 or len(set(out)) < len(out):
    raise ValueError(f"--batch must be different numbers of at least 1, got {','.join(given)}")
  return out


def check(pictures: Sequence[Path], output: str | None) -> None:
  """Raises ValueError for a picture of no known format, and for folders that are not there."""
  for path in pictures:
    check_suffix(path)
  for path in [*pictures, *([Path(output)] if output else [])]:
    if not path.resolve().parent.is_dir():
      raise ValueError(f"{str(path)!r} is in a folder that does not exist")


def show(plans: Sequence[TunedPlan]) -> None:
  """Prints the table of each plan and its reason."""
  console = Console(width=None if Console().is_terminal else 150)
  for one in plans:
    console.print(plan_table(one).for_terminal())
    console.print(one.plan.why(), markup=False, highlight=False)
    console.print()


def save(
  plans: Sequence[TunedPlan],
  pictures: Sequence[Path],
  output: str | None,
  results_path: str | None,
  settings: Mapping[str, Any],
) -> None:
  """Writes pictures and files; with several batch sizes each plan has files of its own.

  Raises ValueError for a file of a plan that holds anything but an older plan of the same.
  """
  for one in plans:
    suffix = f"-batch{one.batch}" if len(plans) > 1 else ""
    if output:
      path = Path(output)
      of = dict(device=one.machine, target=one.target, context=str(one.context))
      save_plan(path.with_stem(path.stem + suffix), one.plan, of | dict(batch=str(one.batch)))
    if pictures and one.drawn is not None:
      drawn = figure(one)
      for path in pictures:
        drawn.savefig(path.with_stem(path.stem + suffix), dpi=110)
  results.write(
    results_path,
    "tune_tree",
    tables=[plan_table(one) for one in plans],
    rows=[row for one in plans for row in one.rows()],
    units=dict(seconds="s", tokens_per_second="tokens/s", measured_tokens_per_second="tokens/s"),
    settings=settings,
    notes=[line for one in plans for line in one.plan.why().split("\n")],
  )
