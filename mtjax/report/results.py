"""Results of benchmarks as files: tables and rows under one header, which says how they were made.

Launchers write them with --results; `python -m docs.make.benchmarks` makes the documents of them.
"""

import dataclasses
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mtjax.report.cells import Cells

# What every file begins with; null where it does not apply or is not known any more.
HEADER = (
  "benchmark", "command", "date", "complete", "project", "versions", "hardware", "units", "rounds",
)  # fmt: skip
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("mtjax", "kernels_pallas", "experiments", "configs")


def header(
  benchmark: str, *, units: Mapping[str, str], rounds: int | None = None, complete: bool = True
) -> dict[str, Any]:
  """Returns the header of a results file for the program that runs now.

  `units` names what the figures of `rows` are measured in, by field. `rounds` is how often each
  timing was repeated; None where nothing is timed. `complete` is False while more is to come: a
  file that a run left behind when it was stopped says so.
  """
  return dict(
    benchmark=benchmark,
    command=command(),
    date=datetime.date.today().isoformat(),
    complete=complete,
    project=dict(version=_version("mtjax"), commit=commit()),
    versions=dict(python=platform.python_version()) | {name: _version(name) for name in _PACKAGES},
    hardware=hardware(),
    units=dict(units),
    rounds=rounds,
  )


def write(
  path: str | Path | None,
  benchmark: str,
  *,
  tables: Sequence[Cells],
  rows: Any,
  units: Mapping[str, str],
  rounds: int | None = None,
  settings: Mapping[str, Any] | None = None,
  limits: Mapping[str, float] | None = None,
  notes: Sequence[str] = (),
  complete: bool = True,
) -> None:
  """Writes the header, the tables as a terminal shows them, and the figures of which they are made.

  `rows` is what JSON can hold. `settings` are those of the run, with the defaults that its command
  does not name. `limits` are the physical limits that were measured in the same run,
  by name and unit; `notes` are sentences that the documents show. A reader never sees half a file.
  With no path nothing is written.
  """
  if path is None:
    return
  record = header(benchmark, units=units, rounds=rounds, complete=complete)
  record |= dict(settings=dict(settings or {}), limits=dict(limits or {}), notes=list(notes))
  record |= dict(tables=[dataclasses.asdict(one) for one in tables], rows=rows)
  write_json(path, record)


def write_json(path: str | Path, record: Mapping[str, Any]) -> None:
  """Writes JSON to a file that has its old content or all of its new content, and nothing else."""
  new = Path(f"{path}.new")
  new.write_text(_json(record) + "\n", encoding="utf-8")
  os.replace(new, path)


def read(path: str | Path) -> dict[str, Any]:
  """Returns a results file. Raises ValueError, with its name, for one that lacks its header."""
  try:
    record = json.loads(Path(path).read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{str(path)!r} is no JSON: {error}") from None
  missing = [name for name in HEADER if not isinstance(record, dict) or name not in record]
  if missing:
    raise ValueError(f"{str(path)!r} is no results file: it lacks {', '.join(missing)}")
  return record


def tables(record: Mapping[str, Any]) -> list[Cells]:
  """Returns the tables of a results file."""
  return [Cells(**one) for one in record.get("tables", ())]


def command() -> str:
  """Returns the command that started this program, as a shell reads it."""
  spec = sys.modules["__main__"].__spec__
  if spec is None:  # started by its installed name
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
  return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])


def commit() -> str | None:
  """Returns the commit that the code is of, with "+" where it was changed; None outside git."""
  git = ["git", "-C", str(_ROOT)]
  try:
    told = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *_CODE], capture_output=True)
  except OSError:
    return None
  # A package that was installed into the tree of another project is not of that project's commit.
  if told.returncode or not (_ROOT / ".git").exists():
    return None
  return told.stdout.strip() + "+" * bool(changed.returncode)


# Flags of /proc/cpuinfo -> what the instructions are called, the widest first.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}


def hardware() -> dict[str, Any]:
  """Returns the processor, how many of its cores may be used, and what JAX computes on."""
  import jax

  from mtjax.native.build import allowed_cores

  device = jax.devices()[0]
  return dict(
    processor=_processor(),
    cores=allowed_cores(),
    device="cpu" if device.platform == "cpu" else device.device_kind,
  )


def _processor() -> str:
  """Returns the processor's name and its widest vectors, on which all timings depend."""
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
  except OSError:
    lines = []
  fields: dict[str, str] = {}
  for line in lines:
    name, _, value = line.partition(":")
    fields.setdefault(name.strip(), value.strip())
  name = fields.get("model name") or platform.processor() or platform.machine()
  flags = fields.get("flags", "").split()
  vectors = [known for flag, known in _VECTORS.items() if flag in flags]
  return f"{name} ({vectors[0]})" if vectors else name


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _json(value: Any, depth: int = 0) -> str:
  """JSON with a line per entry of what holds other containers: a change shows in a diff."""
  inner = value.values() if isinstance(value, Mapping) else value
  if not isinstance(value, Mapping | list | tuple) or not any(
    isinstance(one, Mapping | list | tuple) for one in inner
  ):
    return json.dumps(value, ensure_ascii=False)
  indent = " " * (depth + 1)
  if isinstance(value, Mapping):
    lines = [f"{_json(name)}: {_json(one, depth + 1)}" for name, one in value.items()]
    begin, end = "{}"
  else:
    lines = [_json(one, depth + 1) for one in value]
    begin, end = "[]"
  return f"{begin}\n{indent}" + f",\n{indent}".join(lines) + f"\n{' ' * depth}{end}"
