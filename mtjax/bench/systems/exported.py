"""The models that all systems of a comparison load, in the transformers format."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from mtjax import checkpoints
from mtjax.models import Model, Params
from mtjax.pretrained import load_pretrained, model_path
from mtjax.text import TextModel

WEIGHTS = ("float32", "stored")
GGUF = "target.gguf"


def export(folder: str, models: Mapping[str, str], weights: str) -> dict[str, TextModel]:
  """Writes each model below `folder` under its name here, and returns the models as written.

  models: name -> bundled model, folder or hub id. "stored": as they are; a system may use that
  bfloat16 holds them exactly. "float32": moved by a hair, so that none can. The file of a target
  that is a GGUF file is linked beside it, as `GGUF`.
  """
  if weights not in WEIGHTS:
    raise ValueError(f"weights {weights!r} is not one of: {', '.join(WEIGHTS)}")
  texts = {}
  for name, source in models.items():
    text = load_pretrained(source)
    params = off_bfloat16(text.params) if weights == "float32" else text.params
    texts[name] = TextModel(text.model, params, text.tokenizer)
    checkpoints.save(Path(folder) / name, text.model, params, tokenizer=text.tokenizer)
    if name == "target":
      link_gguf(folder, source)
  return texts


def link_gguf(folder: str, source: str) -> Path | None:
  """Links the GGUF file of a model as `GGUF` of `folder`, and returns it; None if it has none."""
  file = Path(model_path(source)).expanduser()
  if not file.is_file():
    return None
  (Path(folder) / GGUF).symlink_to(file.resolve())
  return file


def off_bfloat16(params: Params) -> Params:
  """Returns float32 with a weight per matrix off bfloat16's grid, so that packing keeps 32 bits."""
  return jax.tree.map(_not_bfloat16, params)


def to_bfloat16(params: Params) -> Params:
  """Returns every matrix rounded to bfloat16, which is another model."""
  return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim > 1 else x, params)


def _not_bfloat16(x):
  if x.dtype == jnp.int8:
    return x
  x = x.astype(jnp.float32)
  return x if x.ndim < 2 else x.at[0, 0].multiply(1 + 2**-20)


def as_llama(text: TextModel) -> tuple[Model, Params]:
  """Returns a masked model as a Llama whose last token is the mask, which transformers loads.

  Its weights are the same; the file cannot say that all entries see each other, so who loads it
  must. Raises ValueError for a model whose mask is no extra embedding, or with others beside it.
  """
  config, params = text.model.config, dict(text.params)
  if config.extra_names != ("mask",):
    raise ValueError(
      f"only a model with one extra embedding, 'mask', becomes a Llama: this one has "
      f"{config.extra_names}"
    )
  table = jnp.concatenate([params["embedding"]["table"], params.pop("extra")["table"]])
  plain = dataclasses.replace(
    config,
    vocab_size=config.vocab_size + 1,
    extra_embeddings=0,
    extra_names=(),
    predicts="next_token",
    block_length=0,
  )
  return Model(plain), params | dict(embedding=dict(table=table))
