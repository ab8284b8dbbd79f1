"""Devices that are not here, to trace and lower for."""

from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

# Cores of a device: a chip is one (v5p, v4), or is one core, or two devices (7x).
TPUS = {"TPU v5": 2, "TPU v4": 2, "TPU v5 lite": 1, "TPU7x": 1}


def on(kind: str):
  """A context in which programs are for a TPU of this kind."""
  device = AbstractDevice(device_kind=kind, num_cores=TPUS[kind], platform="tpu")
  return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))
