"""Our own any-subset models: a llama with a query, a sink and further learned entries.

transformers has no such network. The names of what the two share are a llama's, so that the weights
of either can be read by hand into the other.
"""

import dataclasses
from typing import Any

from mtjax.checkpoints.families import llama
from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import Family
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.layout import Recipe, whole
from mtjax.models import TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  return dataclasses.replace(
    llama.read(raw),
    extra_embeddings=raw["extra_embeddings"],
    target_conditioning=raw.get("target_conditioning", "none"),
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  out = dict(**llama.write(config), extra_embeddings=config.extra_embeddings)
  if config.target_conditioning != "none":
    out["target_conditioning"] = config.target_conditioning
  return out


def recipes(config: TransformerConfig) -> dict[str, Recipe]:
  extra = whole("rows", "model.extra_embeddings.weight", config.extra_embeddings, config.dim)
  out = {**decoder_recipes(config), "extra/table": extra}
  if config.target_conditioning != "none":
    name = "model.target_positions.weight"
    out["target/table"] = whole("rows", name, config.max_position, config.dim)
  if config.target_conditioning == "adaptive_norm":
    for index in range(len(config.layers)):
      ours, theirs = f"layer_{index}/modulation", f"model.layers.{index}.modulation"
      out[f"{ours}/kernel"] = whole("out_in", f"{theirs}.weight", 6 * config.dim, config.dim)
      out[f"{ours}/bias"] = whole("rows", f"{theirs}.bias", 6 * config.dim)
  return out


def refusal(config: TransformerConfig) -> str | None:
  if not config.extra_embeddings:
    return "it has no extra embeddings"
  return llama.LLAMA.refusal(config)


ANY_SUBSET = Family(
  model_type="mtjax_any_subset",
  architecture="AnySubsetModel",
  defaults=llama.LLAMA.defaults,
  read=read,
  write=write,
  recipes=recipes,
  refusal=refusal,
)
