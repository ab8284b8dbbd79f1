"""Compiles for a chip in a separate process: its compiler reads the environment at the start."""

import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from mtjax.bench.compile import chips
from mtjax.bench.compile.chips import Chip
from mtjax.bench.compile.dumps import TPU_FLAGS, Figures
from mtjax.bench.compile.shapes import LAYER, CompiledShape, shapes_of


@dataclasses.dataclass(frozen=True)
class CompileJob:
  """A program (`programs.PROGRAMS`) for one shape."""

  shape: CompiledShape
  program: str = "attention"


@dataclasses.dataclass(frozen=True)
class Compiled:
  """The result of compiling a job. All but the seconds is deterministic."""

  chip: str
  job: CompileJob
  seconds: float = 0.0  # seconds of CPU time
  arguments: int = 0  # bytes per device
  temporary: int = 0  # bytes per device beside inputs and outputs
  collectives: tuple[str, ...] = ()  # as "all-reduce bf16[4,16,4096]"
  figures: Figures | None = None  # figures of its kernels; None: there are none
  refused: str | None = None  # why frontier_attention refused it
  failed: str | None = None  # the error of the compiler

  @property
  def copies_cache(self) -> bool:
    """Returns whether neither keys nor values, half of the cache each, were copied."""
    return bool(self.job.shape.cache_bytes) and self.temporary > self.job.shape.cache_bytes * 3 // 8


def compiled(chip: Chip, jobs: Sequence[CompileJob], *, seconds: float = 120.0) -> list[Compiled]:
  """Compiles all jobs for one chip, in a process that may take `seconds` per job.

  Raises ModuleNotFoundError, naming the extra, without the chip's compiler; TimeoutError; and
  RuntimeError with the end of what the process wrote if it died.
  """
  if (reason := chips.missing(chip.platform)) is not None:
    raise ModuleNotFoundError(reason)
  # On a GPU a process neither compiles nor reports again a kernel that it has compiled before.
  parts = [[job] for job in jobs] if chip.platform == "gpu" else [jobs]
  return [one for part in parts for one in _in_a_process(chip, part, seconds * len(part))]


def _in_a_process(chip: Chip, jobs: Sequence[CompileJob], seconds: float) -> list[Compiled]:
  with tempfile.TemporaryDirectory() as folder:
    try:
      run = subprocess.run(
        [sys.executable, "-m", "mtjax.bench.compile.child", folder],
        input=json.dumps([dataclasses.asdict(chip), [dataclasses.asdict(job) for job in jobs]]),
        env=_environment(chip, folder),
        capture_output=True,
        text=True,
        timeout=seconds,
      )
    except subprocess.TimeoutExpired as error:
      raise TimeoutError(
        f"{len(jobs)} compilations for {chip.name} took more than {seconds:.0f} s"
      ) from error
  if run.returncode:
    raise RuntimeError(f"compiling for {chip.name} died: {run.stderr[-2000:]}")
  rows = json.loads(run.stdout.splitlines()[-1])
  return [_result(chip.name, job, row) for job, row in zip(jobs, rows, strict=True)]


def table(
  names: Sequence[str], *, progress: Callable[[str], None] = lambda text: None
) -> list[Compiled]:
  """Compiles all shapes of each chip's platform, and a layer per mesh, in the order of `names`.

  Two compilers run at a time. Raises like `compiled`, and ValueError for an unknown name.
  """
  known = chips.CHIPS | chips.MESHES
  if unknown := [name for name in names if name not in known]:
    raise ValueError(f"unknown chip {unknown[0]!r}; there are: {', '.join(known)}")

  def one(chip: Chip) -> list[Compiled]:
    if chip.mesh is None:
      jobs = [CompileJob(shape) for shape in shapes_of(chip.platform)]
    else:
      jobs = [CompileJob(LAYER, "layer")]
    results = compiled(chip, jobs)
    progress(chip.name)
    return results

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    return [row for rows in pool.map(one, [known[name] for name in names]) for row in rows]


def _result(chip: str, job: CompileJob, row: dict) -> Compiled:
  figures = row.pop("figures", None)
  row["collectives"] = tuple(row.get("collectives", ()))
  return Compiled(chip, job, **row, figures=None if figures is None else Figures(**figures))


def _environment(chip: Chip, folder: str) -> dict[str, str]:
  """Returns the environment of a compiler that writes its reports to `folder`."""
  variables = clean_environment(chip.platform)
  if chip.platform == "gpu":
    return variables | {"CUDA_VISIBLE_DEVICES": "-1", "MOSAIC_GPU_DUMP_TO": folder}
  return variables | {"LIBTPU_INIT_ARGS": " ".join(TPU_FLAGS).format(folder=folder)}


def clean_environment(platform: str) -> dict[str, str]:
  """Returns an environment without settings of JAX or XLA, which would change the compilation."""
  variables = {n: v for n, v in os.environ.items() if not n.startswith(("JAX_", "XLA_", "LIBTPU_"))}
  variables |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
  if platform != "tpu":
    return variables
  return variables | {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    # There is no device that two processes could both claim.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
  }
