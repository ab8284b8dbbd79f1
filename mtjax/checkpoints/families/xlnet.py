"""XLNet (1906.08237): projections by head, biases of relative attention, a query embedding."""

from typing import Any

from mtjax.checkpoints.families.family import Family, activation
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.layout import Piece, Recipe, whole
from mtjax.models import XLNetConfig

# Settings that change logits -> the only value that the network supports, and its meaning.
_FIXED = {
  "attn_type": ("bi", "both directions"),
  "bi_data": (False, "one direction of the data"),
  "clamp_len": (-1, "distances as they are"),
  "same_length": (False, "whole texts"),
  "untie_r": (True, "biases of each layer"),
}


def read(raw: Fields) -> XLNetConfig:
  for name, (value, meaning) in _FIXED.items():
    if raw[name] != value:
      raise ValueError(
        f"an xlnet with {name} {raw[name]!r} is not supported, only {value!r}: {meaning}"
      )
  dim, heads = raw["d_model"], raw["n_head"]
  return XLNetConfig(
    vocab_size=raw["vocab_size"],
    dim=dim,
    heads=heads,
    head_dim=dim // heads,
    mlp_dim=raw["d_inner"],
    depth=raw["n_layer"],
    norm_eps=float(raw["layer_norm_eps"]),
    activation=activation(raw["ff_activation"]),
    tied=raw["tie_word_embeddings"],
  )


def write(config: XLNetConfig) -> dict[str, Any]:
  names = {"gelu_tanh": "gelu_new"}
  return dict(
    vocab_size=config.vocab_size,
    d_model=config.dim,
    n_layer=config.depth,
    n_head=config.heads,
    d_inner=config.mlp_dim,
    ff_activation=names.get(config.activation, config.activation),
    layer_norm_eps=config.norm_eps,
    tie_word_embeddings=config.tied,
    **{name: value for name, (value, _) in _FIXED.items()},
  )


def recipes(config: XLNetConfig) -> dict[str, Recipe]:
  c = config
  by_head = (c.dim, c.heads, c.head_dim)
  out = {
    "embedding/table": whole("rows", "transformer.word_embedding.weight", c.vocab_size, c.dim),
    "extra/table": whole("rows", "transformer.mask_emb", 1, 1, c.dim),
  }
  for index in range(c.depth):
    ours, theirs = f"layer_{index}", f"transformer.layer.{index}"
    attention = f"{theirs}.rel_attn"
    fused = [Piece(f"{attention}.{x}", by_head, 0, c.heads * c.head_dim) for x in "qkv"]
    out |= {
      f"{ours}/attention/qkv/kernel": Recipe("in_out", tuple(fused)),
      f"{ours}/attention/out/kernel": whole("out_in", f"{attention}.o", *by_head),
      f"{ours}/attention/relative": whole("in_out", f"{attention}.r", *by_head),
      f"{ours}/attention/segments": whole("rows", f"{attention}.seg_embed", 2, *by_head[1:]),
    }
    for name, stored in (("content", "r_w"), ("position", "r_r"), ("segment", "r_s")):
      bias = whole("rows", f"{attention}.{stored}_bias", *by_head[1:])
      out[f"{ours}/attention/{name}_bias"] = bias
    for norm, stored in (("attention", "rel_attn"), ("mlp", "ff")):
      for x in ("weight", "bias"):
        name = f"{theirs}.{stored}.layer_norm.{x}"
        out[f"{ours}/{norm}_norm/{x}"] = whole("rows", name, c.dim)
    for part, stored, (inputs, outputs) in (
      ("up", "layer_1", (c.dim, c.mlp_dim)),
      ("down", "layer_2", (c.mlp_dim, c.dim)),
    ):
      name = f"{theirs}.ff.{stored}"
      out[f"{ours}/mlp/{part}/kernel"] = whole("out_in", f"{name}.weight", outputs, inputs)
      out[f"{ours}/mlp/{part}/bias"] = whole("rows", f"{name}.bias", outputs)
  if not c.tied:
    out["head/kernel"] = whole("out_in", "lm_loss.weight", c.vocab_size, c.dim)
  out["logit_bias"] = whole("rows", "lm_loss.bias", c.vocab_size)
  return out


XLNET = Family(
  model_type="xlnet",
  architecture="XLNetLMHeadModel",
  defaults=dict(
    vocab_size=32000,
    d_model=1024,
    n_layer=24,
    n_head=16,
    d_inner=4096,
    ff_activation="gelu",
    layer_norm_eps=1e-12,
    tie_word_embeddings=True,
    **{name: value for name, (value, _) in _FIXED.items()},
  ),
  read=read,
  write=write,
  recipes=recipes,
  prefixes=("transformer.", ""),
  heads=("lm_loss.weight",),
  config=XLNetConfig,
)
