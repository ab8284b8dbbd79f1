"""LoRA adapters on disk, in the files and names of peft: adapter_config.json, safetensors."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.checkpoints import families, layout, writing
from mtjax.checkpoints.header import read_header
from mtjax.checkpoints.reading import DTYPES, read_json
from mtjax.models import Config, Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Fields of peft that change what is computed, with the one value that is computed here.
_UNSUPPORTED: dict[str, Any] = dict(
  use_dora=False, bias="none", layer_replication=None, lora_bias=False, use_qalora=False,
  trainable_token_indices=None,
)  # fmt: skip


def is_adapter(path: str | os.PathLike) -> bool:
  """Returns whether a folder holds adapters alone."""
  return (Path(path).expanduser() / CONFIG).is_file()


def base_of(folder: str | os.PathLike) -> str:
  """Returns the name of the model under the adapters. Raises ValueError if they do not say it."""
  file = Path(folder).expanduser() / CONFIG
  name = read_json(file).get("base_model_name_or_path")
  if not isinstance(name, str) or not name:
    raise ValueError(f"{file} does not name a base model: load it as adapter= of one")
  return name


def save_adapters(
  folder: str | os.PathLike,
  config: Config,
  adapters: Params,
  *,
  base: str,
  scale: float = 1.0,
  dtype: Any = "bfloat16",
) -> None:
  """Writes adapters (`mtjax.models.lora`) of unrolled layers for a model of this config.

  A fused map is several of peft's, which all get its A. Parameters that are trained whole are
  written as peft's modules_to_save. `base` is what `mtjax.load` takes. Settings of the config that
  a base model may lack (a mask, blocks) stand in the field "mtjax", which peft ignores. Raises
  ValueError for parameters that are no adapters of this config, and for different ranks.
  """
  family, raw = families.express(config)
  recipes, flat = family.recipes(config), _flat(adapters)
  tensors: dict[str, np.ndarray] = {}
  ranks, modules, whole = set(), set(), set()
  for path, value in flat.items():
    array = np.asarray(jnp.asarray(value).astype(dtype))
    owner, _, kind = path.rpartition("/")
    if kind == "lora_a":
      other = np.asarray(jnp.asarray(flat[f"{owner}/lora_b"]).astype(dtype))
      ranks.add(array.shape[-1])
      recipe = recipes[f"{owner}/kernel"]
      for name in dict.fromkeys(piece.name for piece in recipe.pieces):
        module = _PREFIX + name.removesuffix(".weight")
        modules.add(module.rpartition(".")[2])
        tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(array.T)
        tensors[f"{module}.lora_B.weight"] = _part(recipe, name, other)
    elif kind != "lora_b":
      (piece,) = recipes[path].pieces
      whole.add(piece.name.removesuffix(".weight").rpartition(".")[2])
      tensors[_PREFIX + piece.name] = layout.stored_tensor(recipes[path], array, piece.name)
  if len(ranks) != 1:
    raise ValueError(f"adapters of one rank can be saved, got the ranks {sorted(ranks)}")
  (rank,) = ranks
  settings = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": rank,
    "lora_alpha": scale * rank,
    "target_modules": sorted(modules),
    "modules_to_save": sorted(whole) or None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "mtjax": {"model_type": family.model_type, **raw},
  }
  declared = {name: (array.dtype, array.shape) for name, array in tensors.items()}
  place = Path(folder).expanduser()
  place.mkdir(parents=True, exist_ok=True)
  new = place / f"{WEIGHTS}.new"
  with open(new, "wb") as stream:
    stream.write(writing.header_of(declared))
    for array in tensors.values():
      stream.write(np.ascontiguousarray(array).view(np.uint8).data)
  os.replace(new, place / WEIGHTS)
  writing.write_json(place / CONFIG, settings)


def load_adapters(folder: str | os.PathLike, config: Config) -> tuple[Config, Params]:
  """Returns the adapted model's config and float32 adapters, with their scale in B.

  `config` is that of the base model. Adapters of one map that share their A stay so; others stand
  beside each other, so that a fused map has the sum of their ranks. Raises FileNotFoundError for
  missing files, and ValueError for what is not plain LoRA of linear maps (DoRA, biases, embeddings)
  and for tensors that do not fit the model.
  """
  folder = Path(folder).expanduser()
  for name in (CONFIG, WEIGHTS):
    if not (folder / name).is_file():
      raise FileNotFoundError(f"{folder} has no {name}: it holds no adapters of peft")
  settings = read_json(folder / CONFIG)
  if settings.get("peft_type") != "LORA":
    raise ValueError(
      f"{folder / CONFIG}: peft_type must be LORA, got {settings.get('peft_type')!r}"
    )
  for name, value in _UNSUPPORTED.items():
    if settings.get(name, value) != value and settings.get(name):
      raise ValueError(f"{folder / CONFIG}: {name} {settings[name]!r} is not supported")
  if own := settings.get("mtjax"):
    config = families.read_config(own, str(folder / CONFIG))[1]
  family, _ = families.express(config)
  stored = _read(folder / WEIGHTS)
  adapters: Params = {}
  used: set[str] = set()
  for path, recipe in family.recipes(config).items():
    names = list(dict.fromkeys(piece.name for piece in recipe.pieces))
    keys = {name: _PREFIX + name.removesuffix(".weight") for name in names}
    if _PREFIX + names[0] in stored and len(names) == 1:
      used.add(_PREFIX + names[0])
      value = stored[_PREFIX + names[0]].astype(np.float32)
      if value.shape != recipe.pieces[0].shape:
        raise ValueError(
          f"{folder / WEIGHTS}: {names[0]} is {value.shape} and must be {recipe.pieces[0].shape}"
        )
      _set(adapters, path, jnp.asarray(value.T if recipe.layout == "out_in" else value))
    present = {n: k for n, k in keys.items() if f"{k}.lora_A.weight" in stored}
    if present:
      pairs = {}
      for name, key in present.items():
        a, b = (f"{key}.lora_{x}.weight" for x in "AB")
        if b not in stored:
          raise ValueError(f"{folder / WEIGHTS} has {a} without {b}")
        used |= {a, b}
        pairs[name] = stored[a], stored[b], _scale(settings, key, stored[a].shape[0])
      a, b = _fused(recipe, pairs, folder / WEIGHTS)
      owner = path.removesuffix("/kernel")
      _set(adapters, f"{owner}/lora_a", jnp.asarray(a))
      _set(adapters, f"{owner}/lora_b", jnp.asarray(b))
  if unknown := sorted(stored.keys() - used):
    raise ValueError(
      f"{folder / WEIGHTS} has {unknown[0]} ({len(unknown)} such), which is no adapter of a "
      "linear map of this model"
    )
  return config, adapters


def _fused(recipe, pairs, file) -> tuple[np.ndarray, np.ndarray]:
  first = next(iter(pairs.values()))[0]
  shared = all(np.array_equal(a, first) for a, _, _ in pairs.values())
  inputs, outputs = recipe.parameter_shape
  rank = len(first) if shared else sum(len(a) for a, _, _ in pairs.values())
  left, right = np.zeros((inputs, rank), np.float32), np.zeros((rank, outputs), np.float32)
  at = 0
  for name, (a, b, scale) in pairs.items():
    size = sum(piece.stop - piece.start for piece in recipe.pieces if piece.name == name)
    if a.shape[1:] != (inputs,) or b.shape != (size, len(a)):
      raise ValueError(
        f"{file}: the factors of {name} are {a.shape} and {b.shape}; the model needs "
        f"(r, {inputs}) and ({size}, r)"
      )
    left[:, at : at + len(a)] = a.T
    for piece, place in recipe.placed():
      if piece.name == name:
        count = piece.stop - piece.start
        part = b[piece.start : piece.stop].T.astype(np.float32) * scale
        right[at : at + len(a), place : place + count] = part
    at += 0 if shared else len(a)
  return left, right


def _part(recipe, name, b) -> np.ndarray:
  """Returns B [out, r] of one stored map, out of the fused one [r, N]."""
  size = sum(piece.stop - piece.start for piece in recipe.pieces if piece.name == name)
  out = np.empty((size, len(b)), b.dtype)
  for piece, at in recipe.placed():
    if piece.name == name:
      out[piece.start : piece.stop] = b[:, at : at + piece.stop - piece.start].T
  return out


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
  alpha = float(settings.get("lora_alpha", 8))
  for pattern, value in (settings.get("alpha_pattern") or {}).items():
    if module.endswith(pattern):
      alpha = float(value)
  return alpha / (rank**0.5 if settings.get("use_rslora") else rank)


def _read(file: Path) -> dict[str, np.ndarray]:
  out = {}
  content = file.read_bytes()
  for name, tensor in read_header(file).items():
    if tensor.dtype not in DTYPES:
      raise ValueError(f"{file}: {name} is {tensor.dtype}; only {', '.join(DTYPES)} can be read")
    count = int(np.prod(tensor.shape, dtype=np.int64))
    array = np.frombuffer(content, DTYPES[tensor.dtype], count, tensor.offset)
    out[name] = array.reshape(tensor.shape)
  return out


def _flat(tree: Params) -> dict[str, Any]:
  pairs = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def _set(out: Params, path: str, value: Any) -> None:
  *folders, name = path.split("/")
  for folder in folders:
    out = out.setdefault(folder, {})
  out[name] = value
