"""XLNet: the language model with the query stream, whole, segments included.

`mem_len` and `reuse_len` are not read: they say how much of earlier texts a caller may keep, and
change nothing in a pass that is given none. Memories themselves, which stand before the text, are
not supported: any-order keys and values are a cache's. Segment parameters are kept as they are.
"""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import fused_qkv
from mtjax.checkpoints.families.family import NAMES, Family, Raw, activation, required
from mtjax.checkpoints.layout import Recipe, whole
from mtjax.models import XLNetConfig


def read(raw: Raw) -> XLNetConfig:
  if raw["attn_type"] != "bi":
    raise ValueError(f"an xlnet with attn_type {raw['attn_type']!r} is not supported, only 'bi'")
  if raw["bi_data"]:
    raise ValueError("an xlnet with bi_data (half of a batch runs backwards) is not supported")
  if raw["clamp_len"] > 0:
    raise ValueError(f"an xlnet with clamp_len {raw['clamp_len']} is not supported, only -1: none")
  dim, heads = required(raw, "d_model"), required(raw, "n_head")
  if raw.get("d_head") not in (None, dim // heads):
    raise ValueError(f"d_head is {raw['d_head']} and must be d_model / n_head, {dim // heads}")
  return XLNetConfig(
    vocab_size=required(raw, "vocab_size"),
    dim=dim,
    heads=heads,
    mlp_dim=required(raw, "d_inner"),
    depth=required(raw, "n_layer"),
    activation=activation(raw["ff_activation"]),
    norm_eps=float(raw["layer_norm_eps"]),
    tied=bool(raw["tie_word_embeddings"]),
    max_position=raw["max_position"],
  )


def write(config: XLNetConfig) -> dict[str, Any]:
  return dict(
    vocab_size=config.vocab_size,
    d_model=config.dim,
    n_layer=config.depth,
    n_head=config.heads,
    d_head=config.head_dim,
    d_inner=config.mlp_dim,
    ff_activation=NAMES[config.activation],
    layer_norm_eps=config.norm_eps,
    attn_type="bi",
    bi_data=False,
    clamp_len=-1,
    same_length=False,
    mem_len=None,
    reuse_len=None,
    tie_word_embeddings=config.tied,
    # Ours; transformers, which refuses max_position_embeddings here, keeps and ignores it.
    max_position=config.max_position,
  )


def recipes(config: XLNetConfig) -> dict[str, Recipe]:
  c = config
  out = {
    "embedding/table": whole("rows", "transformer.word_embedding.weight", c.vocab_size, c.dim),
    "extra/table": whole("rows", "transformer.mask_emb", 1, 1, c.dim),
  }
  for index in range(c.depth):
    layer = _layer(c, f"transformer.layer.{index}")
    out |= {f"layer_{index}/{path}": recipe for path, recipe in layer.items()}
  if not c.tied:
    out["head/kernel"] = whole("out_in", XLNET.head, c.vocab_size, c.dim)
  out["logit_bias"] = whole("rows", "lm_loss.bias", c.vocab_size)
  return out


def _layer(c: XLNetConfig, base: str) -> dict[str, Recipe]:
  attention, mlp = f"{base}.rel_attn", f"{base}.ff"
  heads = (c.heads, c.head_dim)
  biases = dict(content="r_w_bias", position="r_r_bias", segment="r_s_bias")
  qkv = fused_qkv(c, [f"{attention}.{x}" for x in "qkv"], [(c.dim, *heads)] * 3)
  return {
    "attention/qkv/kernel": Recipe("in_out", qkv),
    "attention/out/kernel": whole("out_in", f"{attention}.o", c.dim, *heads),
    "attention/position": whole("rows", f"{attention}.r", c.dim, *heads),
    "attention/segment": whole("rows", f"{attention}.seg_embed", 2, *heads),
    **{
      f"attention/{ours}_bias": whole("rows", f"{attention}.{theirs}", *heads)
      for ours, theirs in biases.items()
    },
    **_norm("attention_norm", f"{attention}.layer_norm", c.dim),
    **_linear("mlp/up", f"{mlp}.layer_1", c.mlp_dim, c.dim),
    **_linear("mlp/down", f"{mlp}.layer_2", c.dim, c.mlp_dim),
    **_norm("mlp_norm", f"{mlp}.layer_norm", c.dim),
  }


def _norm(path, name, dim) -> dict[str, Recipe]:
  return {f"{path}/{x}": whole("rows", f"{name}.{x}", dim) for x in ("weight", "bias")}


def _linear(path, name, outputs, inputs) -> dict[str, Recipe]:
  return {
    f"{path}/kernel": whole("out_in", f"{name}.weight", outputs, inputs),
    f"{path}/bias": whole("rows", f"{name}.bias", outputs),
  }


XLNET = Family(
  model_type="xlnet",
  architecture="XLNetLMHeadModel",
  defaults=dict(
    ff_activation="gelu",
    layer_norm_eps=1e-12,
    attn_type="bi",
    bi_data=False,
    clamp_len=-1,
    tie_word_embeddings=True,
    max_position=512,
  ),
  read=read,
  write=write,
  recipes=recipes,
  prefixes=("transformer.",),
  config=XLNetConfig,
  head="lm_loss.weight",
)
