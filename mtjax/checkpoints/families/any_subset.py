"""Our own models: a llama with a query, a sink, prompts or other learned entries.

These are two families of one format: any-subset models and all others. transformers has no such
network and loads neither. Shared tensors have a llama's names, so that weights can be copied by
hand from either to the other.
"""

import dataclasses
from typing import Any

from mtjax.checkpoints.families import llama
from mtjax.checkpoints.families.decoder_tensors import decoder_recipes
from mtjax.checkpoints.families.family import Family
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.layout import Recipe, whole
from mtjax.models import ANY_SUBSET_NAMES, TransformerConfig


def read(raw: Fields) -> TransformerConfig:
  names = raw.get("extra_names")
  if names is None:
    # Folders of any-subset models that are older than names.
    names = ANY_SUBSET_NAMES[: raw["extra_embeddings"]] if raw["predicts"] == "any_subset" else ()
  mask = raw.get("mask_token_id")
  # Folders that are older than this field have masks alone, or do not say that they have more.
  noise = raw.get("noise", "absorbing")
  # A model whose mask is a token of the vocabulary needs none, and one without masks neither.
  bare = mask is not None or noise == "uniform"
  return dataclasses.replace(
    llama.read(raw),
    extra_embeddings=raw.get("extra_embeddings", 0) if bare else raw["extra_embeddings"],
    extra_names=tuple(names),
    predicts=raw["predicts"],
    target_conditioning=raw.get("target_conditioning", "none"),
    any_subset_rows=raw.get("any_subset_rows", "two_stream"),
    mask_id=mask,
    alignment=raw.get("alignment", "aligned"),
    block_length=raw.get("block_length", 0),
    noise=noise,
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  out = dict(
    **llama.write(config),
    predicts=config.predicts,
    extra_names=list(config.extra_names),
  )
  if config.extra_embeddings:
    out["extra_embeddings"] = config.extra_embeddings
  if config.target_conditioning != "none":
    out["target_conditioning"] = config.target_conditioning
  if config.any_subset_rows != "two_stream":
    out["any_subset_rows"] = config.any_subset_rows
  if config.mask_id is not None:
    out["mask_token_id"] = config.mask_id
  if config.alignment != "aligned":
    out["alignment"] = config.alignment
  if config.block_length:
    out["block_length"] = config.block_length
  if config.noise != "absorbing":
    out["noise"] = config.noise
  return out


def recipes(config: TransformerConfig) -> dict[str, Recipe]:
  out = decoder_recipes(config)
  if config.extra_embeddings:
    name = "model.extra_embeddings.weight"
    out["extra/table"] = whole("rows", name, config.extra_embeddings, config.dim)
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
  if not config.extra_embeddings and config.mask_id is None and config.noise != "uniform":
    return "it has no extra embeddings"
  return llama.LLAMA.refusal(config)


def _refusal_of_others(config: TransformerConfig) -> str | None:
  if config.predicts != "any_subset":
    return f"it predicts {config.predicts!r}, not 'any_subset'"
  return refusal(config)


ANY_SUBSET = Family(
  model_type="mtjax_any_subset",
  architecture="AnySubsetModel",
  defaults={**llama.LLAMA.defaults, "predicts": "any_subset"},
  read=read,
  write=write,
  recipes=recipes,
  refusal=_refusal_of_others,
)
EXTENDED = dataclasses.replace(
  ANY_SUBSET,
  model_type="mtjax_extended",
  architecture="ExtendedModel",
  defaults={**llama.LLAMA.defaults, "predicts": "next_token"},
  refusal=refusal,
)
