"""A generation on a mesh: what its arguments must be, and where they are put."""

from jax.sharding import Mesh
from jaxtyping import PyTree

from mtjax.decode.job import DecodeJob
from mtjax.models import Model, Params
from mtjax.rounds.placement import check_unpacked, warn_of_heads
from mtjax.rounds.state import put_batch
from mtjax.sharding import put_known, shard_params


def put_inputs(
  job: DecodeJob, model: Model, params: Params, method_params: PyTree, mesh: Mesh | None
) -> tuple:
  """Returns the inputs of the program, on the devices of the mesh; None: where they are.

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
  warn_of_heads(model.config.kv_heads, mesh, stacklevel=5)  # the caller of generate or stream
