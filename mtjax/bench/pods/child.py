"""The child of `process.compile_rounds`: jobs on standard input, a line of results for each."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, Mesh

from mtjax import sharding
from mtjax.bench.pods.cases import PodMesh, RoundCase
from mtjax.bench.pods.collectives import collectives
from mtjax.bench.pods.process import DRAFT_LAYER, TARGET_LAYER
from mtjax.bench.pods.round import bytes_per_device, memory, round_program

# Where an exchange may come from, by the names of stages and of modules.
SCOPES = {DRAFT_LAYER: r"propose\b.*layer_0\b", TARGET_LAYER: r"forward\b.*layer_0\b"}


def compile_round(case: RoundCase, pod: PodMesh) -> dict[str, Any]:
  """Returns the fields of `process.CompiledRound`: one layer of each model is compiled."""
  devices = _devices(pod)
  mesh = sharding.make_mesh(pod.data, pod.model, devices=devices)
  with jax.sharding.use_abstract_mesh(_abstract(mesh, devices[0], pod)):
    part = round_program(case, mesh, 1)
    needed = memory(case, mesh)
    lowered = jax.jit(part.function, donate_argnums=1).lower(part.inputs, part.state)
  compiled = lowered.compile()
  used = compiled.memory_analysis()
  return dict(
    **needed._asdict(),
    temporary=None if pod.topology is None else used.temp_size_in_bytes,
    padding=used.argument_size_in_bytes - bytes_per_device((part.inputs, part.state)),
    collectives=collectives(compiled.as_text() or "", SCOPES),
  )


def _devices(pod: PodMesh) -> Sequence[Any]:
  if pod.topology is None:
    return jax.devices()
  return topologies.get_topology_desc(platform="tpu", topology_name=pod.topology).devices


def _abstract(mesh: Mesh, device, pod: PodMesh) -> AbstractMesh:
  """Returns the mesh without devices; it names the chip that kernels are lowered for."""
  if pod.topology is None:
    return mesh.abstract_mesh
  chip = AbstractDevice(device_kind=device.device_kind, num_cores=device.num_cores, platform="tpu")
  return mesh.abstract_mesh.update(abstract_device=chip)


def main() -> None:
  if int(sys.argv[1]):
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
  for job in json.load(sys.stdin):
    found = compile_round(RoundCase(**job["case"]), PodMesh(**job["pod"]))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
  main()
