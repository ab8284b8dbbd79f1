"""A generation on a mesh: what its arguments must be, and where they are put."""

from jax.sharding import Mesh
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.decode.job import DecodeJob
from mtjax.models import Model, Params
from mtjax.rounds.placement import check_unpacked, mesh_beside, warn_of_heads
from mtjax.rounds.state import put_batch
from mtjax.sharding import MeshLike, parse_mesh, put_known, shard_params


def chosen_mesh(mesh: MeshLike, params: Params) -> Mesh | None:
  """Returns the mesh to decode on: the one that is named, or for None that of the parameters.

  None: the parameters are on one device. Raises ValueError as `mtjax.sharding.parse_mesh`,
  `mtjax.hosts.check_own_or_whole` and `mtjax.rounds.placement.mesh_beside` do.
  """
  if (named := parse_mesh(mesh)) is None:
    return mesh_beside(params)
  hosts.check_own_or_whole(named)
  return named


def put_inputs(
  job: DecodeJob, model: Model, params: Params, method_params: PyTree, mesh: Mesh | None
) -> tuple:
  """Returns the inputs of the program, on the devices of the mesh; None: as they are.

  Parameters are split by their rules, rows over the data axis, a cache as `cache_shardings` says;
  what is there already stays. Of the method's parameters those that no rule names are whole on
  every device. Raises ValueError for parameters that are packed for one CPU. Warns of key heads
  that the model axis does not divide.
  """
  if mesh is None:
    return params, method_params, *job.arrays
  _check(model, params, method_params, mesh)
  rows = job.arrays[1].shape[0]
  arrays = put_batch(job.arrays, mesh, rows)
  return shard_params(params, mesh), put_known(method_params, mesh), *arrays


def _check(model: Model, params: Params, method_params: PyTree, mesh: Mesh) -> None:
  check_unpacked("the model", params, mesh)
  check_unpacked("the method", method_params, mesh)
  # The stack level is that of the caller of generate or stream.
  warn_of_heads("the model", model.config.kv_heads, mesh, stacklevel=5)
