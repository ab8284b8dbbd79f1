"""The models whose latency is profiled: those of files, and shapes with random weights."""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mtjax.bench.attention.clock import check_fits, memory_limit
from mtjax.bench.passes.verification import bytes_read
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.draft import Drafter, ModelChain, PromptLookup
from mtjax.models import Layer, Model, TransformerConfig
from mtjax.models.stacking import scannable, scanned
from mtjax.pretrained import for_decoding, load
from mtjax.registry.drafters import check_vocabulary
from mtjax.sharding import mesh_sizes, param_shardings
from mtjax.text import TextModel
from mtjax.tuning.roofline import PUBLISHED, MeshSize, ModelShape, published_shape
from mtjax.tuning.roofline.step import held_bytes

LOOKUP = "lookup"  # prompt lookup, in place of a draft model
LAYERS = ("unrolled", "stacked")
_DRAFTS = {"target": "draft"}  # draft models of models of files; others have prompt lookup
_PARTS = 6  # the draft model of a shape has at most one sixth of its weights
_FIRST = 2  # layers of the target that are a draft model, where no published size is that small
_POSITIONS = 16_384
_STD = 0.02  # of random weights


@dataclasses.dataclass(frozen=True)
class ProfiledModel:
  """A target with what drafts for it, in memory, and the shapes of both."""

  text: TextModel
  shape: ModelShape
  draft: TextModel | None = None  # None: prompt lookup
  draft_shape: ModelShape | None = None

  @property
  def draft_name(self) -> str:
    """The name of the draft model, or LOOKUP."""
    return LOOKUP if self.draft is None else self.draft.name

  @property
  def drafter(self) -> Callable[[int], Drafter]:
    """A function from a number of steps to the drafter of chains of so many drafts."""
    if self.draft is None:
      return lambda steps: PromptLookup(length=steps)
    model = self.draft.model
    return lambda steps: ModelChain(model, steps)

  @property
  def drafter_params(self) -> PyTree:
    """The parameters of the draft model, if there is one."""
    return None if self.draft is None else self.draft.params

  @property
  def mesh(self) -> MeshSize:
    """The sizes of the mesh that the model is on."""
    return MeshSize(**mesh_sizes(self.text.mesh))

  def held(self, *, batch: int, tokens: int) -> float:
    """Returns the bytes of weights and caches of both models on a device."""
    shapes = [shape for shape in (self.shape, self.draft_shape) if shape is not None]
    return sum(held_bytes(shape, batch=batch, tokens=tokens, mesh=self.mesh) for shape in shapes)


def load_profiled(
  name: str, draft: str | None, *, dtype: str | None, mesh: Mesh | None, layers: str
) -> ProfiledModel:
  """Returns a model as it decodes on this machine, with its draft model.

  name: a published size, such as "8B", for a Llama of that shape with random weights, or what
  `mtjax.load` takes. draft: the same, or LOOKUP; None: `draft_of` for a shape, the bundled draft
  model for the bundled target, and LOOKUP for others. A draft model of a published size has the
  vocabulary of its target. dtype: None: float32 on a CPU and bfloat16 elsewhere for shapes, and the
  type of the file for others. layers: of shapes, one of LAYERS; on a CPU they are stacked in any
  case. Raises ValueError as `mtjax.load` does and for a draft model of another vocabulary, and
  DoesNotFit for a shape that is larger than the memory.
  """
  here = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  load_one = functools.partial(_load, dtype=dtype, mesh=mesh, layers=layers)
  shape = published_shape(name, dtype=dtype or here) if name in PUBLISHED else None
  text, shape = load_one(name, shape)
  small = None
  if draft is None:
    draft = _DRAFTS.get(name, LOOKUP)
    if name in PUBLISHED:
      draft, small = draft_of(shape)
  elif draft in PUBLISHED:
    small = _for_target(draft, shape)
  if draft == LOOKUP:
    return ProfiledModel(text, shape)
  other, other_shape = load_one(draft, small)
  if small is None:
    check_vocabulary(other, text, draft)
  return ProfiledModel(text, shape, other, other_shape)


def draft_of(target: ModelShape) -> tuple[str, ModelShape]:
  """Returns a draft model for a shape: its name, and its shape with the target's vocabulary.

  It is the largest published size with at most a sixth of the target's weights, or, where none is
  that small, the first two layers of the target.
  """
  known = {name: _for_target(name, target) for name in PUBLISHED}
  small = {name: one for name, one in known.items() if _PARTS * one.weights <= target.weights}
  if small:
    return max(small.items(), key=lambda item: item[1].weights)
  return f"{_FIRST} layers", dataclasses.replace(target, windows=target.windows[:_FIRST])


def random_model(
  name: str, shape: ModelShape, *, mesh: Mesh | None = None, layers: str = "unrolled"
) -> TextModel:
  """Returns a transformer of a shape with random weights, which are made on the devices themselves.

  It has the layers of Llama, the bundled tokenizer, and one table for its embedding and its head:
  a pass reads as many weights as with two. On a mesh every device makes its own part.
  """
  config = TransformerConfig(
    vocab_size=shape.vocab,
    dim=shape.width,
    heads=shape.heads,
    kv_heads=shape.kv_heads,
    head_dim=shape.head_dim,
    mlp_dim=shape.mlp_width,
    layers=tuple(Layer(window=window) for window in shape.windows),
    mlp="gated" if shape.mlp_matrices == 3 else "plain",
    max_position=_POSITIONS,
  )
  config = dataclasses.replace(config, dtype=shape.dtype)
  if layers == "stacked" and scannable(config):
    config = scanned(config)
  model = Model(config)
  leaves, tree = jax.tree_util.tree_flatten_with_path(model.shapes())
  shardings = [None] * len(leaves)
  if mesh is not None:
    shardings = jax.tree.leaves(param_shardings(model.shapes(), mesh))
  keys = jax.random.split(jax.random.key(0), len(leaves))
  made = [
    _filled(leaf.shape, shape.dtype, path[-1].key == "weight", sharding)(key)
    for (path, leaf), sharding, key in zip(leaves, shardings, keys, strict=True)
  ]
  return TextModel(model, jax.tree.unflatten(tree, made), BpeTokenizer.bundled(), name, mesh)


def device_memory() -> int:
  """Returns the bytes that programs may use on the first device, or those of the computer."""
  return memory_limit() or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _load(
  name: str, shape: ModelShape | None, *, dtype: str | None, mesh: Mesh | None, layers: str
) -> tuple[TextModel, ModelShape]:
  """Returns a model, and its shape with the bytes that its weights have; None: of a file."""
  if shape is None:
    text = load(name, dtype=dtype, mesh=mesh)
    shape = ModelShape.of_config(text.model.config)
  else:
    size = held_bytes(shape, batch=1, tokens=0, mesh=MeshSize(**mesh_sizes(mesh)))
    # A CPU packs the weights, into stacks of its own, and holds them twice for a while.
    packs = mesh is None and jax.default_backend() == "cpu"
    check_fits((1 + packs) * size, device_memory())
    layers = "unrolled" if packs else layers
    text = for_decoding(random_model(name, shape, mesh=mesh, layers=layers))
  return text, dataclasses.replace(shape, weight_bytes=bytes_read(text.params) / shape.weights)


def _for_target(name: str, target: ModelShape) -> ModelShape:
  shape = published_shape(name, dtype=target.dtype)
  return dataclasses.replace(shape, vocab=target.vocab)


@functools.cache
def _filled(
  shape: tuple[int, ...], dtype: str, is_norm: bool, sharding: NamedSharding | None
) -> Callable[[PRNGKeyArray], Float[Array, "..."]]:
  """Returns a program that makes one parameter; equal ones share it."""

  def make(key):
    return jnp.ones(shape, dtype) if is_norm else _STD * jax.random.normal(key, shape, dtype)

  return jax.jit(make, out_shardings=sharding)
