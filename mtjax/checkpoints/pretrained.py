"""Models on disk: folders of transformers (config.json, safetensors, tokenizer), GGUF files."""

import contextlib
import dataclasses
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mtjax import sharding
from mtjax.checkpoints import families, layout, matching, tokenizer_files, writing
from mtjax.checkpoints.gguf import GgufTensors, read_settings
from mtjax.checkpoints.reading import (
  DTYPES,
  INDEX,
  SINGLE,
  StoredTensors,
  TensorSource,
  read_json,
)
from mtjax.data.gguf.files import gguf_in, is_gguf
from mtjax.data.hub import MODEL_FILES, local_folder
from mtjax.data.tokenizer_source import FILES
from mtjax.models import Config, Model, Params

_FLOATS = tuple(dtype.name for dtype in DTYPES.values())
_SHARD = 5 * 10**9  # bytes per file, as in transformers


def load(
  source: str | os.PathLike, *, dtype: Any = None, mesh: Mesh | None = None
) -> tuple[Model, Params]:
  """Returns a model and its parameters from a local folder, a GGUF file or a hub id (extra `hf`).

  A hub id is owner/name or owner/name@revision, with a branch, a tag or a commit.

  dtype None keeps the stored one and computes in float32; with "float32", "bfloat16" or "float16"
  (or the type), parameters are converted to it and the model computes in it. With a mesh, each
  parameter is placed by mtjax.sharding, and a process reads only what its devices hold.

  A folder without safetensors may hold one GGUF file (see `mtjax.checkpoints.gguf`). Quantised
  tensors of it become float32, or `dtype`.

  If config.json ties the head to the embedding but the files store another head, that head is used
  and the model is untied, as in transformers 5.

  Parameters are read one at a time, a few MB at once: the peak of host memory is the parameters
  kept there and a few MB; for other devices, one parameter.

  Raises FileNotFoundError for missing files; ValueError for a family or a setting that is not
  supported, for broken files, and for tensors that are missing, unexpected or misshaped;
  ImportError for an id or a quantisation without its extra. No tensor is read before all names and
  shapes agree.
  """
  computed = "float32" if dtype is None else jnp.dtype(dtype).name
  if computed not in _FLOATS:
    raise ValueError(f"dtype must be None or one of {', '.join(_FLOATS)}, got {computed}")
  path = Path(source).expanduser()
  if not path.is_dir() and not is_gguf(path):
    path = local_folder(
      str(source), MODEL_FILES, "model {name!r}; it must be a folder, a GGUF file or"
    )
  with _opened(path) as (family, config, stored):
    config, recipes = matching.match(stored, family, config)
    model = Model(dataclasses.replace(config, dtype=computed))
    target = None if dtype is None else np.dtype(computed)
    shapes = model.shapes()
    if family.folding is None:
      flat = _read(_flat(shapes), recipes, stored, target, mesh)
    else:
      kept = {
        path: jax.ShapeDtypeStruct(recipe.parameter_shape, jnp.float32)
        for path, recipe in recipes.items()
      }
      flat = family.folding.fold(config, _read(kept, recipes, stored, target, mesh))
    return model, jax.tree_util.tree_map_with_path(lambda path, _: flat[_name(path)], shapes)


def read_config(source: str | os.PathLike) -> Config:
  """Returns the config of a model in a local folder or GGUF file, without reading its tensors.

  Raises FileNotFoundError, and ValueError as `load` does.
  """
  path = Path(source).expanduser()
  if not path.exists():
    raise FileNotFoundError(f"there is no model {str(source)!r}: give a folder or a GGUF file")
  with _opened(path) as (family, config, stored):
    return matching.match(stored, family, config)[0]


@contextlib.contextmanager
def _opened(path: Path) -> Generator[tuple[families.Family, Config, TensorSource]]:
  """Yields the family and config of a folder or a GGUF file, and its tensors."""
  gguf = path if path.is_file() else None
  if gguf is None and not any((path / name).is_file() for name in (SINGLE, INDEX)):
    gguf = gguf_in(path)
  if gguf is not None:
    with GgufTensors(gguf) as stored:
      yield *_config(read_settings(stored), gguf, stored.described_by), stored
    return
  file = path / "config.json"
  if not file.is_file():
    raise FileNotFoundError(f"{path} has no config.json")
  raw = read_json(file)
  if "model_type" not in raw and {"objective", "model"} <= raw.keys():
    raise ValueError(
      f"{path} is the folder of a training run, not of a model: export its model with "
      f"`python -m experiments.export --workdir={path} --output=FOLDER`, and load FOLDER"
    )
  family, config = _config(raw, file, StoredTensors.described_by)
  with StoredTensors(path) as stored:
    yield family, config, stored


def _config(raw: families.Raw, file: Path, place: str) -> tuple[families.Family, Config]:
  try:
    return families.read_config(raw, place)
  except ValueError as error:
    raise ValueError(f"{file}: {error}") from None


def save(
  folder: str | os.PathLike,
  model: Model,
  params: Params,
  *,
  tokenizer: Any = None,
  shard_bytes: int = _SHARD,
) -> None:
  """Writes a folder that `load` and transformers read: the same numbers in the same dtype.

  The family is the first of `mtjax.checkpoints.families.FAMILIES` that expresses the whole config.
  `tokenizer` is one of mtjax.data.tokenizers: its files are written beside the weights, with the
  end token in every file where readers expect it; without a tokenizer, there is no end token.
  Weights of more than `shard_bytes` are split. Everything is first written under another name: an
  interrupted save leaves no half model. An earlier export in the folder is replaced, other files
  stay.

  Raises ValueError for a config that no family can express, and for int8 or packed parameters. This
  process must be able to read every array, and needs memory for one parameter at a time.
  """
  family, raw = families.express(model.config)
  recipes = family.recipes(model.config)
  flat = _flat(params)
  _check_parameters(flat, model)
  if family.folding is not None:
    flat = family.folding.unfold(model.config, flat)
  folder = Path(folder).expanduser()
  dtypes = {name: flat[path].dtype for path, recipe in recipes.items() for name in _names(recipe)}
  shapes = layout.stored_shapes(recipes)
  declared = {name: (dtypes[name], shapes[name]) for name in shapes}
  ids = tokenizer_files.special_ids(tokenizer, model.config.vocab_size)
  config = {
    "architectures": [family.architecture],
    "model_type": family.model_type,
    **raw,
    # transformers before 4.56 looks for torch_dtype.
    **dict.fromkeys(("dtype", "torch_dtype"), flat["embedding/table"].dtype.name),
    **ids,
  }
  earlier = writing.WEIGHTS if tokenizer is None else (*writing.WEIGHTS, *FILES)
  with writing.new_files(folder, earlier) as place:
    writing.write_tensors(place, declared, _stored(recipes, flat), shard_bytes)
    tokenizer_files.write(place, tokenizer, ids, model.config.max_position)
    writing.write_json(place / "config.json", config)


def _read(shapes, recipes, stored, target, mesh) -> dict[str, jax.Array]:
  places = None if mesh is None else sharding.param_shardings(shapes, mesh)
  flat = {}
  for path, leaf in shapes.items():
    recipe = recipes[path]
    dtype = target or jnp.result_type(*(stored.dtype(name) for name in _names(recipe)))
    if places is None:
      everything = [slice(None)] * len(leaf.shape)
      block = layout.read_block(recipe, stored, leaf.shape, everything, dtype)
      flat[path] = jax.device_put(block)
    else:
      flat[path] = _on_mesh(recipe, stored, leaf.shape, dtype, places[path])
    # Otherwise copies to a device would queue up, each with its host memory.
    flat[path].block_until_ready()
  return flat


def _on_mesh(recipe, stored, shape, dtype, place):
  blocks = {}

  def block(index):
    key = tuple((s.start, s.stop) for s in index)
    if key not in blocks:  # devices that hold the same part share one read
      blocks[key] = layout.read_block(recipe, stored, shape, index, dtype)
    return blocks[key]

  return jax.make_array_from_callback(shape, place, block)


def _stored(recipes, flat):
  for path, recipe in recipes.items():
    parameter = np.asarray(flat[path])
    for name in _names(recipe):
      yield name, layout.stored_tensor(recipe, parameter, name)


def _check_parameters(flat: Mapping[str, Any], model: Model) -> None:
  if any(path.split("/")[-1] in ("int8", "packed") for path in flat):
    raise ValueError(
      "int8 and packed parameters cannot be saved in this format: save the original parameters, "
      "or mtjax.models.quantize.dequantize(params)"
    )
  expected = {path: leaf.shape for path, leaf in _flat(model.shapes()).items()}
  actual = {path: leaf.shape for path, leaf in flat.items()}
  if expected != actual:
    paths = [path for path in {**expected, **actual} if expected.get(path) != actual.get(path)]
    raise ValueError(
      "the parameters are not this model's: "
      + matching.listed([f"{p} is {actual.get(p)} and must be {expected.get(p)}" for p in paths])
    )
  for path, leaf in flat.items():
    if leaf.dtype.name not in _FLOATS:
      raise ValueError(f"{path} is {leaf.dtype}; only {', '.join(_FLOATS)} can be saved")


def _names(recipe: layout.Recipe) -> list[str]:
  return list(dict.fromkeys(piece.name for piece in recipe.pieces))


def _flat(tree: Params) -> dict[str, Any]:
  return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
