"""Figures of a kernel from the files that its compiler writes: memory on the chip, spills, code."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Figures:
  """The figures of one kernel, or the greatest ones of several."""

  memory: int  # bytes: of VMEM per core, including its inputs; or of shared memory per block
  spilled: int  # bytes: of vector registers to VMEM, or of a thread's registers to memory
  bundles: int | None = None  # VLIW instructions in the longest straight piece of a TPU kernel
  registers: int | None = None  # registers per thread of a GPU


def greatest(figures: Sequence[Figures]) -> Figures | None:
  if not figures:
    return None
  bundles = [one.bundles for one in figures if one.bundles is not None]
  registers = [one.registers for one in figures if one.registers is not None]
  return Figures(
    max(one.memory for one in figures),
    max(one.spilled for one in figures),
    max(bundles, default=None),
    max(registers, default=None),
  )


# libtpu writes the report of VMEM and the last form of every program. All forms of all passes would
# be 60 times as much.
TPU_FLAGS = (
  "--xla_jf_dump_to={folder}",
  "--xla_jf_dump_llo_text=true",
  "--xla_jf_dump_llo_pass_label_regex=final_bundles",
)


def tpu_figures(folder: Path, kernel: str) -> Figures | None:
  """Returns figures of the kernels whose names begin with `kernel`; None where there is none."""
  figures = []
  for report in folder.glob("*vmem_report.html"):
    for name, memory, spilled in vmem(report.read_text(encoding="utf-8"), kernel):
      (file,) = folder.glob(f"*-{name}-*[0-9]-final_bundles.txt")
      pieces = straight_pieces(file.read_text(encoding="utf-8"))
      figures.append(Figures(memory, spilled, bundles=max(pieces)))
  return greatest(figures)


def vmem(report: str, kernel: str) -> Iterator[tuple[str, int, int]]:
  """Returns (name, bytes, bytes of spills) per kernel, from libtpu's vmem_report.html."""
  start = report.index("{", report.index("const DATA"))
  data, _ = json.JSONDecoder().raw_decode(report, start)
  for name, one in data["hlo_breakdowns"].items():
    if name.startswith(kernel):
      parts = [part for block in one["blocks"] for part in block.get("allocations", ())]
      yield name, one["total_size"], sum(p["size"] for p in parts if p.get("tag") == "SPILL")


_BUNDLE = re.compile(r"\s*0x[0-9a-f]+\s*(LH|LB|PF)?[^:]*:|\s+0\s+:")


def straight_pieces(bundles: str) -> list[int]:
  """Returns the lengths of pieces without jumps, in bundles, from libtpu's final_bundles.

  The longest is a step's work over its block of keys: what surrounds it is short.
  """
  pieces = [0]
  for line in bundles.splitlines():
    begins = _BUNDLE.match(line)
    if begins:
      if begins[1]:  # of a loop or of the target of a jump
        pieces.append(0)
      pieces[-1] += 1
    if "sbr.rel" in line:
      pieces.append(0)
  return pieces


def gpu_figures(folder: Path) -> Figures | None:
  """Returns figures of all Mosaic GPU kernels; None where there is none."""
  figures = []
  for file in folder.glob("*.ptxas"):
    launch = file.with_name(file.stem + ".before_layout_inference.txt")
    figures.append(gpu_kernel(file.read_text(encoding="utf-8"), launch.read_text(encoding="utf-8")))
  return greatest(figures)


def gpu_kernel(ptxas: str, launch: str) -> Figures:
  """Returns figures from the output of `ptxas -v`, and from the MLIR that launches the kernel."""
  stores, loads = map(int, _one(r"(\d+) bytes spill stores, (\d+) bytes spill loads", ptxas))
  registers, rest = _one(r"Used (\d+) registers(.*)", ptxas)
  static = re.search(r"(\d+) bytes smem", rest)
  (dynamic,) = _one(r"dynamic_shared_memory_size %c(\d+)", launch)
  shared = int(dynamic) + (0 if static is None else int(static[1]))
  return Figures(shared, max(stores, loads), registers=int(registers))


def _one(pattern: str, text: str) -> tuple[str, ...]:
  match = re.search(pattern, text)
  if match is None:
    raise ValueError(f"the compiler's report has no {pattern!r}; it begins: {text[:200]!r}")
  return match.groups()
