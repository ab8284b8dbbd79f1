"""The loop of `mtjax.rounds.run` on a mesh: inputs are split over it, and programs know it."""

import dataclasses
import warnings
from collections.abc import Generator, Iterator
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.rounds import run as rounds
from mtjax.rounds.stopwatch import Stopwatch
from mtjax.sharding import (
  MeshLike,
  describe_mesh,
  heads_note,
  mesh_of,
  on_mesh,
  pad_rows,
  padded_rows,
  parse_mesh,
  row_shardings,
  shard_params,
)

_PACKED = jax.tree_util.DictKey("packed")  # weights that `mtjax.models.quantize.pack` laid out


@dataclasses.dataclass(frozen=True)
class Placement:
  """Where the rounds of a batch run: on a mesh, or on one device."""

  mesh: Mesh | None  # None: not named; see `beside`
  rows: int  # of the batch
  kv_heads: int  # of the model

  @classmethod
  def of(cls, mesh: MeshLike, config: Any, rows: int) -> "Placement":
    """Returns the placement on the mesh that `parse_mesh` reads.

    Raises ValueError as it does, and as `mtjax.hosts.check_own_or_whole`.
    """
    mesh = parse_mesh(mesh)
    hosts.check_own_or_whole(mesh)
    return cls(mesh, rows, config.kv_heads)

  def beside(self, params: PyTree) -> "Placement":
    """Returns the placement, on the mesh of the parameters (`mesh_beside`) if none was named."""
    return self if self.mesh is not None else dataclasses.replace(self, mesh=mesh_beside(params))

  @property
  def padded(self) -> int:
    """The number of rows that are computed: at least `rows`, and the data axis divides it."""
    return padded_rows(self.rows, self.mesh)

  def put(self, inputs: PyTree) -> PyTree:
    """Returns (parameters, everything else of a program) on the mesh; None: as they are.

    Parameters are split by their rules, and rows over the data axis. Where it does not divide them,
    the last row is repeated: a copy, with the same key, ends when that row does, and prolongs
    nothing. An array of the same length that is not of rows (end tokens, automata) is continued
    too: a second copy of its last element changes no result. Warns of key heads that the model axis
    does not divide. Raises ValueError for parameters that are packed for one CPU.
    """
    if self.mesh is None:
      return inputs
    params, *rest = inputs
    check_unpacked("the model", params, self.mesh)
    warn_of_heads("the model", self.kv_heads, self.mesh, stacklevel=5)
    if self.padded > self.rows:
      rest = jax.tree.map(self._continued, rest)
    spread = hosts.put(rest, row_shardings(rest, self.mesh, self.padded))
    return shard_params(params, self.mesh), *spread

  def run(self, program: rounds.Program, inputs: PyTree) -> tuple[Any, Stopwatch]:
    """Returns what `mtjax.rounds.run.run` does, with the inputs of `put`, and the first `rows`.

    Every process of the mesh gets these rows.
    """
    here = self.beside(inputs[0])
    inputs = here.put(inputs)
    with on_mesh(here.mesh):
      state, clock = rounds.run(program, inputs)
    return here._collected(state), clock

  def stream(
    self, program: rounds.Program, inputs: PyTree, *, every: int = 1
  ) -> Generator[tuple[Any, Stopwatch]]:
    """Yields what `mtjax.rounds.run.stream` does, of the first `rows`, as `run`.

    Errors are raised by the call itself.
    """
    here = self.beside(inputs[0])
    states = stepped_on(here.mesh, rounds.stream(program, here.put(inputs), every=every))
    return ((here._collected(state), clock) for state, clock in states)

  def record(self, program: rounds.Program, inputs: PyTree) -> Generator[rounds.Recorded]:
    """Yields what `mtjax.rounds.run.record` does, of the first `rows`, as `run`.

    Errors are raised by the call itself.
    """
    here = self.beside(inputs[0])
    found = stepped_on(here.mesh, rounds.record(program, here.put(inputs)))
    return (
      one._replace(state=here._collected(one.state), observed=here._collected(one.observed))
      for one in found
    )

  def _continued(self, x: Any) -> Any:
    return pad_rows(x, self.padded) if x.ndim and x.shape[0] == self.rows else x

  def _collected(self, tree: PyTree) -> PyTree:
    """Returns arrays [B] and [B, N], which results are made of, without the rows that were added.

    On a mesh of several processes each of them gets all rows. Other arrays, such as caches, stay as
    they are, where they are.
    """
    if self.padded == self.rows and not hosts.is_shared(self.mesh):
      return tree

    def collected(x):
      return hosts.whole(x)[: self.rows] if x.ndim in (1, 2) and len(x) == self.padded else x

    return jax.tree.map(collected, tree)


def stepped_on(mesh: Mesh | None, states: Iterator[Any]) -> Generator[Any]:
  """Yields what `states` does; the mesh is set while a state is computed, and not between two."""
  while True:
    with on_mesh(mesh):
      try:
        state = next(states)
      except StopIteration:
        return
    yield state


def mesh_beside(params: PyTree) -> Mesh | None:
  """Returns the mesh that parameters lie on, for a program that was given none; None: one device.

  So caches, rows and kernels are split in one way, whether a mesh is named or not. Raises
  ValueError for a mesh of other axes than those of `mtjax.sharding.make_mesh`, and for parameters
  on the devices of several processes.
  """
  hosts.check_not_spread("the parameters", params)
  return parse_mesh(mesh_of(params))


def check_unpacked(name: str, params: PyTree, mesh: Mesh) -> None:
  """Raises ValueError for weights that are packed for one CPU, which no mesh can split."""
  if any(path[-1:] == (_PACKED,) for path, _ in jax.tree_util.tree_leaves_with_path(params)):
    raise ValueError(
      f"the weights of {name} are packed for one CPU and cannot be split over the mesh "
      f"{describe_mesh(mesh)}: load the model with mesh=, or with weights=None"
    )


def warn_of_heads(model: str, heads: int, mesh: Mesh | AbstractMesh, *, stacklevel: int) -> None:
  """Warns of what `mtjax.sharding.heads_note` says, if it says anything."""
  if note := heads_note(model, heads, mesh):
    warnings.warn(note, stacklevel=stacklevel)
