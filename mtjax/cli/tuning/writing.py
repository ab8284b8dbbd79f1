"""The table, the reason, the pictures and the files of plans."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mtjax.report import results
from mtjax.report.plans import TunedPlan, figure, plan_table
from mtjax.report.plotting import check_suffix
from mtjax.tuning.plan_file import load_plan, save_plan

# Takes what each plan will belong to, as names and values.
CheckPlans = Callable[[Sequence[Mapping[str, str]]], None]


def batches(given: Sequence[str]) -> list[int]:
  """Returns the batch sizes of a flag. Raises ValueError for what is none, and for duplicates."""
  return numbers("batch", given)


def numbers(name: str, given: Sequence[str]) -> list[int]:
  """Returns what a flag lists: different whole numbers of at least 1. Raises ValueError if not."""
  try:
    out = [int(one) for one in given]
  except ValueError:
    raise ValueError(f"--{name} must be whole numbers, got {','.join(given)}") from None
  if not out or min(out) < 1 or len(set(out)) < len(out):
    raise ValueError(f"--{name} must be different numbers of at least 1, got {','.join(given)}")
  return out


def check(pictures: Sequence[Path], output: str | None) -> None:
  """Raises ValueError for a picture of no known format, and for folders that are not there."""
  for path in pictures:
    check_suffix(path)
  for path in [*pictures, *([Path(output)] if output else [])]:
    if not path.resolve().parent.is_dir():
      raise ValueError(f"{str(path)!r} is in a folder that does not exist")


def check_plans(output: str | None, identities: Sequence[Mapping[str, str]]) -> None:
  """Raises ValueError, before the work, for a file that `save` would not replace by a plan.

  identities: what each plan will belong to (`identity_of_plan`).
  """
  if output is None:
    return
  for of in identities:
    path = _path(output, of["batch"], len(identities))
    if path.exists():
      load_plan(path, **of)


def show(plans: Sequence[TunedPlan]) -> None:
  """Prints the table of each plan, its reason and its notes."""
  console = Console(width=None if Console().is_terminal else 150)
  for one in plans:
    console.print(plan_table(one).for_terminal())
    console.print("\n".join(_sentences(one)), markup=False, highlight=False)
    console.print()


def save(
  plans: Sequence[TunedPlan],
  pictures: Sequence[Path],
  output: str | None,
  results_path: str | None,
  settings: Mapping[str, Any],
) -> None:
  """Writes pictures and files; with several batch sizes each plan has files of its own.

  Plans are the last, so that a file which cannot be replaced costs no other. Raises ValueError for
  a file of a plan that holds anything but an older plan of the same.
  """
  for one in plans:
    if pictures and one.drawn is not None:
      drawn = figure(one)
      for path in pictures:
        drawn.savefig(_path(path, one.batch, len(plans)), dpi=110)
  results.write(
    results_path,
    "tune_tree",
    tables=[plan_table(one) for one in plans],
    rows=[row for one in plans for row in one.rows()],
    units=dict(seconds="s", tokens_per_second="tokens/s", measured_tokens_per_second="tokens/s"),
    settings=settings,
    notes=[line for one in plans for line in _sentences(one)],
  )
  if output is not None:
    for one in plans:
      save_plan(_path(output, one.batch, len(plans)), one.plan, one.identity)


def _path(path: str | Path, batch: int | str, count: int) -> Path:
  """Returns the file of one of `count` plans: several have their batch size in the name."""
  path = Path(path)
  return path.with_stem(f"{path.stem}-batch{batch}") if count > 1 else path


def _sentences(one: TunedPlan) -> list[str]:
  return [*one.plan.why().split("\n"), *one.notes]
