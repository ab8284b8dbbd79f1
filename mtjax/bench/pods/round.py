"""The program of one round and its abstract arguments on a mesh: nothing has data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh
from jaxtyping import PyTree

from mtjax import sharding
from mtjax.bench.pods.cases import CASES, MESHES, RoundCase
from mtjax.decode.generation import prefill
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelTree
from mtjax.models import Model
from mtjax.rounds.state import DecodeState, Request, decode_shardings
from mtjax.sampling.logits import Sampling, row_keys
from mtjax.trees import k_ary

PROMPT = 128  # the longest prompt of the state; the programs of a round do not depend on it
VERIFIER = "rrs_without"
SAMPLING = Sampling(temperature=0.8, top_k=50, top_p=0.95)


class RoundProgram(NamedTuple):
  """A round as a function (inputs, state) -> state, and what it takes."""

  function: Callable[[PyTree, DecodeState], DecodeState]
  inputs: tuple[PyTree, PyTree, Request]  # parameters of the target, of the draft model; request
  state: DecodeState


def round_program(
  case: RoundCase, mesh: Mesh | AbstractMesh, layers: int | None = None
) -> RoundProgram:
  """Returns the round of a case, with jax.ShapeDtypeStructs that say where each array lies.

  The draft model drafts the tree, the target reads it, the verifier decides, and the accepted path
  is committed to both caches. `layers`: of the target and of the draft model each; None: all.
  Call it where `mesh` is the mesh of the context.
  """
  target, draft = case.networks(layers)
  method = Speculative(ModelTree(draft, k_ary(case.topology)), VERIFIER)
  inputs, state = _arguments(case, target, draft, method)
  params, draft_params, request = inputs

  def function(inputs, state):
    stages = method.stages(target, *inputs)
    work = None
    for name, stage in stages.items():
      with jax.named_scope(name):
        work = stage(state, work)
    return work[0]

  placed = (
    _placed(params, sharding.param_shardings(params, mesh)),
    _placed(draft_params, sharding.param_shardings(draft_params, mesh)),
    _placed(request, sharding.row_shardings(request, mesh, case.batch)),
  )
  return RoundProgram(function, placed, _placed(state, decode_shardings(state, mesh)))


def _arguments(case: RoundCase, target: Model, draft: Model, method: Speculative) -> tuple:
  rows, new = case.batch, case.context - PROMPT
  sizes: dict[str, Any] = dict(capacity=case.context, max_new=new)
  prompt = jax.ShapeDtypeStruct((rows, PROMPT), jnp.int32)
  length = jax.ShapeDtypeStruct((rows,), jnp.int32)
  params, draft_params = (_in_bfloat16(model.shapes()) for model in (target, draft))

  def request() -> Request:
    return Request(
      rules=SAMPLING.rules(rows, case.vocab),
      limit=jnp.full((rows,), new, jnp.int32),
      eos=jnp.array([2], jnp.int32),
      key=row_keys(0, rows),
    )

  def begin(params, draft_params, request, prompt, length):
    state = prefill(target, params, request, prompt, length, **sizes)
    return state.replace(method=method.start(draft_params, prompt, length, **sizes))

  inputs = params, draft_params, jax.eval_shape(request)
  return inputs, jax.eval_shape(begin, *inputs, prompt, length)


class Memory(NamedTuple):
  """Bytes on one device, of models with all their layers, without padding."""

  params: int  # of both models
  cache: int  # of both models
  arguments: int  # these, and the rest of a generation's state


def memory(case: RoundCase, mesh: Mesh | AbstractMesh) -> Memory:
  """Returns what the arguments of a round take.

  All layers of a model are alike, so the rest is computed from the program of one layer each.
  """
  _, inputs, state = round_program(case, mesh, 1)
  params, draft_params, _ = inputs
  drafter: Any = state.method.drafter
  weights = cache = rest = 0
  for depth, one, kept in zip(
    case.depths, (params, draft_params), (state.cache, drafter.cache), strict=True
  ):
    weights += bytes_per_device(one) + (depth - 1) * bytes_per_device(one["layer_0"])
    cache += bytes_per_device(kept) + (depth - 1) * bytes_per_device(kept.layers)
  # The draft model keeps keys and values of the tree until it is known what is accepted.
  rest = (case.depths[1] - 1) * bytes_per_device(drafter.reading.kv)
  known = bytes_per_device((params, draft_params, state.cache, drafter.cache))
  return Memory(weights, cache, bytes_per_device((inputs, state)) - known + weights + cache + rest)


class MemoryRow(NamedTuple):
  """The memory of a case on a mesh of data x model devices."""

  case: RoundCase
  data: int
  model: int
  memory: Memory


def table() -> list[MemoryRow]:
  """Returns the memory of all cases on all sizes of meshes; it needs no devices."""
  rows = []
  for data, model in dict.fromkeys((pod.data, pod.model) for pod in MESHES):
    sizes = (data, model, 1)
    mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * len(sizes))
    with jax.sharding.use_abstract_mesh(mesh):
      rows += [MemoryRow(case, data, model, memory(case, mesh)) for case in CASES]
  return rows


def bytes_per_device(tree: PyTree) -> int:
  """Returns the bytes of abstract arrays on one device, without padding."""

  def size(x) -> int:
    elements = 1
    for length in x.sharding.shard_shape(x.shape):
      elements *= length
    return elements * x.dtype.itemsize

  return sum(map(size, jax.tree.leaves(tree)))


def _in_bfloat16(params: PyTree) -> PyTree:
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), params)


def _placed(tree: PyTree, places: PyTree) -> PyTree:
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
  )
