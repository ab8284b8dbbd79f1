"""Devices as a roofline sees them: speeds of arithmetic, memory and links, and fixed costs."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Hardware:
  """Speeds of one device. Those of a data sheet are never reached: `fit_hardware` finds true ones.

  A collective takes link_start + bytes / link; a forward pass takes start + start_per_layer *
  layers beside its work. Raises ValueError for speeds that are not above 0.
  """

  name: str
  flops: Mapping[str, float]  # operations per second by type of the factors
  bandwidth: float  # bytes per second of the device's memory
  memory: float  # bytes
  link: float  # bytes per second and device of an all-reduce, both directions of a ring
  link_start: float  # seconds per collective
  start: float  # seconds per forward pass
  start_per_layer: float  # seconds per layer

  def __post_init__(self):
    speeds = dict(bandwidth=self.bandwidth, memory=self.memory, link=self.link, **self.flops)
    for name, speed in speeds.items():
      if not speed > 0:
        raise ValueError(f"{self.name}: {name} must be above 0, got {speed}")
    if min(self.link_start, self.start, self.start_per_layer) < 0:
      raise ValueError(f"{self.name}: costs of starting must be at least 0 seconds")

  def flops_of(self, dtype: str) -> float:
    """Returns the operations per second of a type. Raises ValueError for one without a figure."""
    if dtype not in self.flops:
      raise ValueError(
        f"{self.name} has no speed for {dtype!r}: known are {', '.join(sorted(self.flops))}"
      )
    return self.flops[dtype]


def _gpu(name, bandwidth, memory):
  # float32 is TF32, which XLA uses unless it is told otherwise.
  flops = dict(bfloat16=989e12, float16=989e12, int8=1979e12, float8=1979e12, float32=495e12)
  return Hardware(name, flops, bandwidth, memory, 450e9, 8e-6, 20e-6, 5e-6)


def _tpu(name, flops, bandwidth, memory, link):
  # float32 as six products of bfloat16.
  by_type = dict(bfloat16=flops, int8=2 * flops, float32=flops / 6)
  return Hardware(name, by_type, bandwidth, memory, link, 5e-6, 10e-6, 1e-6)


# Speeds of arithmetic and memory: NVIDIA's data sheets (dense), Google Cloud's pages of TPU
# versions. link_start, start and start_per_layer are assumptions, and the first to measure. The
# CPU is one core of a server with AVX2, and no more than a place to start a fit from.
HARDWARE = {
  "h100": _gpu("h100", 3.35e12, 80e9),
  "h200": _gpu("h200", 4.8e12, 141e9),
  "v5e": _tpu("v5e", 197e12, 0.819e12, 16e9, 100e9),
  "v5p": _tpu("v5p", 459e12, 2.765e12, 95e9, 200e9),
  "v6e": _tpu("v6e", 918e12, 1.64e12, 32e9, 200e9),
  "cpu": Hardware(
    "cpu", dict(float32=80e9, bfloat16=80e9, int8=160e9), 20e9, 16e9, 10e9, 50e-6, 200e-6, 20e-6
  ),
}

# What the names of TPUs in JAX hold; the first that fits counts.
_TPU_KINDS = {"v6": "v6e", "v5 lite": "v5e", "v5e": "v5e", "v5": "v5p"}


def nearest_hardware(platform: str, kind: str) -> Hardware:
  """Returns the device of HARDWARE that is most like one of JAX, to begin a fit with.

  platform and kind: as JAX names them, such as "gpu" and "NVIDIA H200". Other GPUs than those of
  HARDWARE begin as an h100, other TPUs as a v5e.
  """
  if platform == "cpu":
    return HARDWARE["cpu"]
  if platform != "tpu":
    return HARDWARE["h200" if "h200" in kind.lower() else "h100"]
  return HARDWARE[next((name for word, name in _TPU_KINDS.items() if word in kind.lower()), "v5e")]


def get_hardware(name: str) -> Hardware:
  """Returns a device of HARDWARE by its name. Raises ValueError, with the names, for others."""
  if name not in HARDWARE:
    raise ValueError(f"there is no hardware {name!r}: give one of {', '.join(HARDWARE)}")
  return HARDWARE[name]
