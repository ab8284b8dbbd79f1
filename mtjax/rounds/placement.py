"""The loop of `mtjax.rounds.run` on a mesh: inputs are split over it, and programs know it."""

import dataclasses
import warnings
from collections.abc import Generator, Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from mtjax.rounds import run as rounds
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sharding import (
  DATA,
  MODEL,
  MeshLike,
  describe_mesh,
  on_mesh,
  parse_mesh,
  row_shardings,
  shard_params,
)

_PACKED = jax.tree_util.DictKey("packed")  # weights that `mtjax.models.quantize.pack` laid out


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where the rounds of a batch run: on a mesh, or, if that is None, where the parameters are."""

  mesh: Mesh | None
  rows: int  # of the batch
  kv_heads: int  # of the model

  @classmethod
  def of(cls, mesh: MeshLike, config: Any, rows: int) -> "Placement":
    """Returns the placement on the mesh that `parse_mesh` reads. Raises ValueError as it does."""
    return cls(parse_mesh(mesh), rows, config.kv_heads)

  def put(self, inputs: PyTree) -> PyTree:
    """Returns (parameters, everything else of a program) on the mesh.

    Parameters are split by their rules, and rows over the data axis. Warns of rows that it does not
    divide, which each of its devices then computes all, and of key heads that the model axis does
    not divide. Raises ValueError for parameters that are packed for one CPU.
    """
    if self.mesh is None:
      return inputs
    params, *rest = inputs
    check_unpacked("the model", params, self.mesh)
    if self.rows % self.mesh.shape[DATA]:
      warnings.warn(
        f"{self.rows} rows do not divide over the {self.mesh.shape[DATA]} devices of the axis "
        f"{DATA!r}: each of them computes all rows",
        stacklevel=4,
      )
    warn_of_heads(self.kv_heads, self.mesh, stacklevel=5)
    spread = jax.device_put(rest, row_shardings(rest, self.mesh, self.rows))
    return shard_params(params, self.mesh), *spread

  def run(self, program: rounds.Program, inputs: PyTree) -> tuple[Any, Stopwatch]:
    """Returns what `mtjax.rounds.run.run` does, with the inputs of `put`."""
    inputs = self.put(inputs)
    with on_mesh(self.mesh):
      return rounds.run(program, inputs)

  def stream(
    self, program: rounds.Program, inputs: PyTree, *, every: int = 1
  ) -> Generator[tuple[Any, Stopwatch]]:
    """Yields what `mtjax.rounds.run.stream` does. Errors are raised by the call itself."""
    states = rounds.stream(program, self.put(inputs), every=every)
    return stepped_on(self.mesh, states)

  def record(self, program: rounds.Program, inputs: PyTree) -> Generator[rounds.Recorded]:
    """Yields what `mtjax.rounds.run.record` does. Errors are raised by the call itself."""
    return stepped_on(self.mesh, rounds.record(program, self.put(inputs)))


def stepped_on(mesh: Mesh | None, states: Iterator[Any]) -> Generator[Any]:
  """Yields what `states` does; the mesh is set while a state is computed, and not between two."""
  while True:
    with on_mesh(mesh):
      try:
        state = next(states)
      except StopIteration:
        return
    yield state


def check_unpacked(name: str, params: PyTree, mesh: Mesh) -> None:
  """Raises ValueError for weights that are packed for one CPU, which no mesh can split."""
  if any(path[-1:] == (_PACKED,) for path, _ in jax.tree_util.tree_leaves_with_path(params)):
    raise ValueError(
      f"the weights of {name} are packed for one CPU and cannot be split over the mesh "
      f"{describe_mesh(mesh)}: load the model with mesh=, or with weights=None"
    )


def warn_of_heads(heads: int, mesh: Mesh, *, stacklevel: int) -> None:
  """Warns of key/value heads that the model axis does not divide."""
  if heads % mesh.shape[MODEL]:
    warnings.warn(
      f"{heads} key/value heads do not divide over the {mesh.shape[MODEL]} devices of the axis "
      f"{MODEL!r}: each of them keeps the keys and values of all heads",
      stacklevel=stacklevel,
    )
