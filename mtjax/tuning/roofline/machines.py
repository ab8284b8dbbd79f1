"""Machines by name, such as v5e-8: a kind of device and how many of them there are."""

import dataclasses
import math
import re

from mtjax.tuning.roofline.hardware import HARDWARE, Hardware, get_hardware
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.step import MeshSize, held_bytes, step_cost

_NAME = re.compile(r"(?:(?P<times>\d+)x)?(?P<kind>[a-z0-9]+?)(?:-(?P<size>\d+))?")
# Kinds whose number counts cores and not chips, as in Google Cloud's names: v5p-16 is 8 chips.
_CORES_PER_CHIP = {"v5p": 2}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Devices of one kind, all of which work on one model."""

  name: str
  hardware: Hardware
  devices: int

  def meshes(self, shape: ModelShape) -> list[MeshSize]:
    """Returns all meshes of data x model devices whose axis `model` divides a model's heads.

    The one with the largest axis `model` is the first.
    """
    shared = math.gcd(self.devices, shape.heads)
    sizes = [n for n in range(shared, 0, -1) if shared % n == 0]
    return [MeshSize(data=self.devices // n, model=n) for n in sizes]

  def mesh(
    self, shape: ModelShape, *, batch: int, context: int, entries: int = 1, others: float = 0.0
  ) -> MeshSize:
    """Returns the mesh on which a model decodes fastest, of those that it fits on.

    A mesh fits if what a device holds of context + entries tokens per row (`held_bytes`), together
    with `others`, the bytes of other models, is no more than its memory. The fastest is that whose
    pass over one entry per row takes the least time (`step_cost`). If none fits, it is the one that
    needs the least memory.
    """
    hardware, tokens = self.hardware, context + entries
    meshes = self.meshes(shape)
    held = {mesh: held_bytes(shape, batch=batch, tokens=tokens, mesh=mesh) for mesh in meshes}
    fitting = [mesh for mesh in meshes if held[mesh] + others <= hardware.memory]
    if not fitting:
      return min(meshes, key=lambda mesh: held[mesh])
    return min(
      fitting,
      key=lambda mesh: (
        step_cost(hardware, shape, batch=batch, entries=1, context=context, mesh=mesh).seconds
      ),
    )

  def least_held(self, shape: ModelShape, *, batch: int, tokens: int) -> float:
    """Returns the bytes per device of a model and its cache, on the mesh that needs the least."""
    sizes = dict(batch=batch, tokens=tokens)
    return min(held_bytes(shape, mesh=mesh, **sizes) for mesh in self.meshes(shape))


def parse_machine(name: str) -> Machine:
  """Returns the machine of a name: h100, v5e-8, v5p-16 or 8xh100.

  A number behind the kind is that of Google Cloud's names: chips for v5e and v6e, cores for v5p, of
  which a chip has two. For GPUs it is their number. Raises ValueError for other names.
  """
  match = _NAME.fullmatch(name)
  if match is None or (match["times"] and match["size"]):
    raise ValueError(
      f"there is no hardware {name!r}: give one of {', '.join(HARDWARE)}, with a number of devices "
      "as in v5e-8 or 8xh100"
    )
  hardware = get_hardware(match["kind"])
  count = int(match["size"] or match["times"] or 1)
  cores = _CORES_PER_CHIP.get(match["kind"], 1) if match["size"] else 1
  if count < 1 or count % cores:
    raise ValueError(
      f"{name!r} is not a whole number of devices of at least 1"
      + f": {match['kind']} counts {cores} cores per chip" * (cores > 1)
    )
  return Machine(name, hardware, count // cores)
