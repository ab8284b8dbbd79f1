"""Figures of a kernel out of what its compiler writes down: memory on the chip, spills, code."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Figures:
  """Of one kernel, or the greatest of several."""

  memory: (
    int  # bytes: a core's VMEM, what lies in it for the kernel included; a block's shared memory
  )
  spilled: int  # bytes: of vector registers, to VMEM; of a thread's registers, to memory
  bundles: int | None = None  # VLIW instructions of the longest straight piece of a TPU's kernel
  registers: int | None = None  # of a GPU's thread


def greatest(found: Sequence[Figures]) -> Figures | None:
  if not found:
    return None
  bundles = [one.bundles for one in found if one.bundles is not None]
  registers = [one.registers for one in found if one.registers is not None]
  return Figures(
    max(one.memory for one in found),
    max(one.spilled for one in found),
    max(bundles, default=None),
    max(registers, default=None),
  )


# Of the libtpu that writes: the report of VMEM, and the last form of every program. All forms of
# all passes are 60 times as much.
TPU_FLAGS = (
  "--xla_jf_dump_to={folder}",
  "--xla_jf_dump_llo_text=true",
  "--xla_jf_dump_llo_pass_label_regex=final_bundles",
)


def tpu_figures(folder: Path, kernel: str) -> Figures | None:
  """Of the kernels whose names begin with `kernel`; None where none was compiled."""
  found = []
  for report in folder.glob("*vmem_report.html"):
    for name, memory, spilled in vmem(report.read_text(encoding="utf-8"), kernel):
      (file,) = folder.glob(f"*-{name}-*[0-9]-final_bundles.txt")
      pieces = straight_pieces(file.read_text(encoding="utf-8"))
      found.append(Figures(memory, spilled, bundles=max(pieces)))
  return greatest(found)


def vmem(report: str, kernel: str) -> Iterator[tuple[str, int, int]]:
  """(name, bytes, bytes of spills) of kernels, from libtpu's vmem_report.html."""
  start = report.index("{", report.index("const DATA"))
  data, _ = json.JSONDecoder().raw_decode(report, start)
  for name, one in data["hlo_breakdowns"].items():
    if name.startswith(kernel):
      parts = [part for block in one["blocks"] for part in block.get("allocations", ())]
      yield name, one["total_size"], sum(p["size"] for p in parts if p.get("tag") == "SPILL")


_BUNDLE = re.compile(r"\s*0x[0-9a-f]+\s*(LH|LB|PF)?[^:]*:|\s+0\s+:")


def straight_pieces(bundles: str) -> list[int]:
  """Bundles between two places where the program can go on elsewhere, from libtpu's final_bundles.

  The longest is a step's work over its block of keys: what surrounds it is short.
  """
  pieces = [0]
  for line in bundles.splitlines():
    begins = _BUNDLE.match(line)
    if begins:
      if begins[1]:  # of a loop or of what is jumped to
        pieces.append(0)
      pieces[-1] += 1
    if "sbr.rel" in line:
      pieces.append(0)
  return pieces


def gpu_figures(folder: Path) -> Figures | None:
  """Of all Mosaic GPU kernels; None where none was compiled."""
  found = []
  for file in folder.glob("*.ptxas"):
    launch = file.with_name(file.stem + ".before_layout_inference.txt")
    found.append(gpu_kernel(file.read_text(encoding="utf-8"), launch.read_text(encoding="utf-8")))
  return greatest(found)


def gpu_kernel(ptxas: str, launch: str) -> Figures:
  """From what `ptxas -v` says of a kernel, and from the MLIR that launches it."""
  stores, loads = map(int, _one(r"(\d+) bytes spill stores, (\d+) bytes spill loads", ptxas))
  registers, rest = _one(r"Used (\d+) registers(.*)", ptxas)
  static = re.search(r"(\d+) bytes smem", rest)
  (dynamic,) = _one(r"dynamic_shared_memory_size %c(\d+)", launch)
  shared = int(dynamic) + (0 if static is None else int(static[1]))
  return Figures(shared, max(stores, loads), registers=int(registers))


def _one(pattern: str, text: str) -> tuple[str, ...]:
  found = re.search(pattern, text)
  if found is None:
    raise ValueError(f"the compiler's report has no {pattern!r}; it begins: {text[:200]!r}")
  return found.groups()
