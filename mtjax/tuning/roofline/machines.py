"""Machines by name, such as v5e-8: a kind of device and how many of them there are."""

import dataclasses
import math
import re

from mtjax.tuning.roofline.hardware import HARDWARE, Hardware, get_hardware
from mtjax.tuning.roofline.model_shape import ModelShape
from mtjax.tuning.roofline.step import MeshSize, step_cost

_NAME = re.compile(r"(?:(?P<times>\d+)x)?(?P<kind>[a-z0-9]+?)(?:-(?P<size>\d+))?")
# Kinds whose number counts cores and not chips, as in Google Cloud's names: v5p-16 is 8 chips.
_CORES_PER_CHIP = {"v5p": 2}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Devices of one kind, all of which work on one model."""

  name: str
  hardware: Hardware
  devices: int

  def mesh(self, shape: ModelShape) -> MeshSize:
    """Returns the mesh that splits as much of a model as its heads allow.

    The axis `model` has the largest number of devices that divides both all devices and the heads;
    the others hold copies and share the rows of a batch.
    """
    model = math.gcd(self.devices, shape.heads)
    return MeshSize(data=self.devices // model, model=model)

  def step_seconds(self, shape: ModelShape, *, batch: int, context: int, entries: int = 1) -> float:
    """Returns the time of a pass of a model on its own mesh. Raises as `step_cost` does."""
    cost = step_cost(
      self.hardware, shape, batch=batch, entries=entries, context=context, mesh=self.mesh(shape)
    )
    return float(cost.seconds)


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
