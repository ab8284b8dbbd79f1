"""The child of `process.compiled`: jobs on standard input, a line of results on standard output."""

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, SingleDeviceSharding

from mtjax import sharding
from mtjax.bench.compile import dumps
from mtjax.bench.compile.chips import Chip
from mtjax.bench.compile.programs import PROGRAMS
from mtjax.bench.compile.shapes import CompiledShape

# The description of an H200 or H100 with 132 multiprocessors for XLA's CUDA compiler.
_SM_90A = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 threads_per_warp: 32
  threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: %d shared_memory_per_core: 233472
  memory_bandwidth: 4800000000000 l2_cache_size: 62914560 clock_rate_ghz: 1.98
  device_memory_size: 150000000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 13 }
device_description_str: "%s"
"""


def devices_of(chip: Chip) -> Sequence[Any]:
  if chip.platform == "tpu":
    return topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices
  target = _SM_90A % (chip.memory, chip.topology)
  return topologies.get_topology_desc(
    platform="cuda", target_config=target, topology="1x1x1"
  ).devices


def compile_job(
  chip: Chip, devices: Sequence[Any], shape: CompiledShape, program: str, folder: Path
) -> dict:
  """Compiles one job and returns the fields of `process.Compiled`."""
  begin = _cpu_seconds()
  mesh = None
  if chip.mesh is not None:
    mesh = sharding.make_mesh(*chip.mesh, devices=devices)
  function, arguments = PROGRAMS[program](shape, chip.platform, mesh)
  if mesh is None:
    where = SingleDeviceSharding(devices[0])
    arguments = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), arguments
    )
  try:
    with jax.sharding.use_abstract_mesh(_abstract(chip, devices[0])):
      lowered = jax.jit(function).lower(*arguments)
  except ValueError as error:
    return {"refused": str(error)}
  try:
    program_of_chip = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    return {"failed": str(error)}
  seconds = _cpu_seconds() - begin
  memory = program_of_chip.memory_analysis()
  if chip.platform == "tpu":
    figures = dumps.tpu_figures(folder, "frontier_attention")
  else:
    figures = dumps.gpu_figures(folder)
  return {
    "seconds": seconds,
    "arguments": memory.argument_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
    "collectives": _collectives(program_of_chip.as_text() or ""),
    "figures": None if figures is None else dataclasses.asdict(figures),
  }


def _abstract(chip: Chip, device) -> AbstractMesh:
  """Patches what JAX reads from the chip: the lowering of kernels depends on it."""
  cores = device.num_cores if chip.platform == "tpu" else None
  return AbstractMesh(
    (),
    (),
    abstract_device=AbstractDevice(
      device_kind=device.device_kind, num_cores=cores, platform=chip.platform
    ),
  )


def _collectives(text: str) -> list[str]:
  """Returns the collectives of a program; a start and its end count once."""
  kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
  matches = re.findall(rf"= (\(?\w+\[[\d,]*\]).* ({kinds})(?:-start)?\(", text)
  return [f"{kind} {shape}" for shape, kind in matches]


def _cpu_seconds() -> float:
  """Returns the CPU seconds of this process and of its children."""
  times = os.times()
  return times.user + times.system + times.children_user + times.children_system


def main() -> None:
  folder = Path(sys.argv[1])
  chip, jobs = json.load(sys.stdin)
  if chip["mesh"] is not None:
    chip["mesh"] = tuple(chip["mesh"])
  chip = Chip(**chip)
  devices = devices_of(chip)
  rows = []
  for job in jobs:
    for path in folder.iterdir():
      shutil.rmtree(path) if path.is_dir() else path.unlink()
    rows.append(compile_job(chip, devices, CompiledShape(**job["shape"]), job["program"], folder))
  print(json.dumps(rows))


if __name__ == "__main__":
  main()
