"""The time of one forward pass by its work: a roofline with collectives and fixed costs."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from mtjax.tuning.roofline.hardware import Hardware
from mtjax.tuning.roofline.model_shape import ModelShape

Amount = Any  # a number, or an array with one number per pass


@dataclasses.dataclass(frozen=True)
class MeshSize:
  """The number of devices along each axis: rows, heads and MLP, and positions of the cache."""

  data: int = 1
  model: int = 1
  sequence: int = 1

  def __post_init__(self):
    if min(self.data, self.model, self.sequence) < 1:
      raise ValueError(f"every axis needs at least one device, got {self}")

  def __str__(self):
    """The mesh as `mtjax.sharding.parse_mesh` reads it, without axes of size 1; or "data:1"."""
    sizes = {name: size for name, size in dataclasses.asdict(self).items() if size > 1}
    return ",".join(f"{name}:{size}" for name, size in (sizes or dict(data=1)).items())


@dataclasses.dataclass(frozen=True)
class StepWork:
  """The work of one device in one forward pass; the fields of several passes may be arrays."""

  linear_flops: Amount
  attention_flops: Amount
  weight_bytes: Amount
  cache_bytes: Amount
  activation_bytes: Amount
  collective_bytes: Amount  # that a device sends
  collectives: Amount  # their number
  layers: Amount

  def cost(self, hardware: Hardware, flops: Amount) -> "StepCost":
    """Returns the seconds of each part; `flops` is the speed of arithmetic in the pass's type."""
    moved = self.weight_bytes + self.activation_bytes
    return StepCost(
      work=self,
      linear=np.maximum(self.linear_flops / flops, moved / hardware.bandwidth),
      attention=np.maximum(self.attention_flops / flops, self.cache_bytes / hardware.bandwidth),
      collective=self.collectives * hardware.link_start + self.collective_bytes / hardware.link,
      launch=hardware.start + hardware.start_per_layer * self.layers,
    )


@dataclasses.dataclass(frozen=True)
class StepCost:
  """The seconds of a forward pass, part by part, and the work behind them."""

  work: StepWork
  linear: Amount  # the matrices
  attention: Amount
  collective: Amount
  launch: Amount

  @property
  def seconds(self) -> Amount:
    """The time of the pass: parts run one after another."""
    return self.linear + self.attention + self.collective + self.launch


def step_cost(
  hardware: Hardware,
  shape: ModelShape,
  *,
  batch: int,
  entries: int,
  context: int,
  mesh: MeshSize = MeshSize(),
) -> StepCost:
  """Returns the cost of a pass over `entries` entries per row behind `context` committed tokens.

  On one device, with P weights, B rows, T entries and S tokens of context, the matrices and the
  attention each have a roofline (Williams et al., Roofline, CACM 2009):

      linear      max(2 P B T / flops, (P weight_bytes + activations) / bandwidth)
      attention   max(4 L heads head_dim B T (S + T) / flops, keys and values / bandwidth)
      launch      start + start_per_layer L

  On n devices along `model` a layer has 2 all-reduces, each link_start + 2 (n - 1) / n B T width
  bytes / link. A gated MLP also has collective-permutes: gate and up are halves of one matrix, so
  the columns of one MLP unit lie on different devices, and change places before they are multiplied
  (`mtjax.sharding.RULES`). For an even n of at least 4 there are 4, which take 4 link_start +
  5 B T mlp_width / n bytes / link (`_permutes` has other n). Along `sequence` a layer has one
  all-reduce, of partial attention.

  Weights, MLPs and the vocabulary split over `model`. With H key/value heads,

      n divides H   a device keeps, reads and computes its own heads;
      H divides n   it keeps the keys and values of all heads, and copies the one that its queries
                    read. Then that head's bytes count three times (read, written, read); of a model
                    with a single head they count once;
      otherwise     it keeps, reads and computes all heads.

  Nothing overlaps. Exchanges once per pass (embeddings, logits) are not counted, nor is what moves
  keys and values after their projection where n does not divide H. Raises ValueError for a mesh
  that does not divide the heads, and for a model that does not fit into memory.
  """
  work = step_work(shape, batch=batch, entries=entries, context=context, mesh=mesh)
  held = held_bytes(shape, batch=batch, tokens=context + entries, mesh=mesh)
  if held > hardware.memory:
    raise ValueError(
      f"the model and its cache take {held / 1e9:.1f} GB per device, {hardware.name} has "
      f"{hardware.memory / 1e9:.0f} GB: use more devices, a smaller batch or less context"
    )
  return work.cost(hardware, hardware.flops_of(shape.dtype))


def held_bytes(shape: ModelShape, *, batch: int, tokens: int, mesh: MeshSize) -> float:
  """Returns the bytes of weights, keys and values that a device holds for `tokens` per row.

  Where `model` does not divide the key/value heads, a device holds those of all heads, as decoding
  on a mesh does (`mtjax.cache.cache_shardings`). Rows split over `data`, tokens over `sequence`.
  """
  rows = -(-batch // mesh.data)
  weights = shape.weights * shape.weight_bytes / mesh.model
  share = _device_heads(shape, mesh.model).held / shape.kv_heads
  return weights + shape.kv_bytes_per_token * rows * tokens * share / mesh.sequence


class _DeviceHeads(NamedTuple):
  """How many heads a device has in attention, on n devices along `model` (`step_cost`)."""

  held: int  # key/value heads that it keeps
  moved: int  # key/value heads that it reads, or writes as a copy, in a pass
  queries: int  # query heads that it computes


def _device_heads(shape: ModelShape, n: int) -> _DeviceHeads:
  queries, keys = shape.heads, shape.kv_heads
  if keys % n == 0:
    return _DeviceHeads(keys // n, keys // n, queries // n)
  if n % keys == 0:
    # The head is read, written as a copy, and read again.
    return _DeviceHeads(keys, 1 if keys == 1 else 3, queries // n)
  return _DeviceHeads(keys, keys, queries)


def _permutes(n: int) -> tuple[int, int]:
  """Returns the collective-permutes of a gated MLP on n devices, and how much a device sends.

  Their number is what XLA compiles. The second figure is in parts of one n-th of the MLP's width,
  of all permutes together.
  """
  return {1: (0, 0), 2: (2, 2), 3: (2, 4)}.get(n, (4, 5 + n % 2))


def step_work(
  shape: ModelShape, *, batch: int, entries: int, context: int, mesh: MeshSize = MeshSize()
) -> StepWork:
  """Returns the work of one device in a pass, as `step_cost` takes it.

  Raises ValueError for sizes below 1 and for a mesh that does not divide the heads.
  """
  if min(batch, entries) < 1 or context < 0:
    raise ValueError(f"batch and entries must be at least 1: {batch}, {entries}, {context}")
  n, parts = mesh.model, mesh.sequence
  if shape.heads % n:
    raise ValueError(
      f"{shape.heads} heads do not divide among {n} devices: use a model axis that divides "
      f"{shape.heads}"
    )
  rows = -(-batch // mesh.data)
  element = 4 if shape.dtype == "float32" else 2
  seen = shape.visible(context)
  own = _device_heads(shape, n)
  heads = own.queries * shape.head_dim
  reduced = 2 * (n - 1) / n * rows * entries * shape.width * element
  permutes, moved = _permutes(n) if shape.mlp_matrices == 3 else (0, 0)
  permuted = moved * rows * entries * shape.mlp_width / n * element
  # Partial results of attention are merged in float32, with one more number per head.
  merged = 2 * (parts - 1) / parts * rows * entries * heads * (1 + 1 / shape.head_dim) * 4
  kv_bytes = 2 * own.moved * shape.head_dim * shape.kv_bytes
  return StepWork(
    linear_flops=2 * shape.weights * rows * entries / n,
    attention_flops=4 * heads * rows * entries * (seen / parts + shape.layers * entries),
    weight_bytes=shape.weights * shape.weight_bytes / n,
    cache_bytes=kv_bytes * rows * seen / parts,
    # A layer reads and writes its width about six times; logits are float32, written and read.
    activation_bytes=rows
    * entries
    * (shape.layers * 12 * shape.width * element + 8 * shape.vocab)
    / n,
    collective_bytes=shape.layers * (2 * reduced + permuted + merged),
    collectives=shape.layers * (2 * (n > 1) + permutes + (parts > 1)),
    layers=shape.layers,
  )


def free_entries(
  hardware: Hardware,
  shape: ModelShape,
  *,
  batch: int,
  context: int,
  mesh: MeshSize = MeshSize(),
  slack: float = 0.1,
  limit: int = 4096,
) -> int:
  """Returns the largest number of entries whose pass takes at most 1 + `slack` of that of one."""

  def seconds(entries):
    return step_cost(
      hardware, shape, batch=batch, entries=entries, context=context, mesh=mesh
    ).seconds

  allowed, low, high = (1 + slack) * seconds(1), 1, limit
  while low < high:  # time rises with entries
    middle = (low + high + 1) // 2
    low, high = (middle, high) if seconds(middle) <= allowed else (low, middle - 1)
  return low
