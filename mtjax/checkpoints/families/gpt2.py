"""GPT-2: learned positions, layer norms with biases, kernels stored as [in, out]."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import fused_qkv
from mtjax.checkpoints.families.family import Family, activation
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.layout import Recipe, whole
from mtjax.models import TransformerConfig, uniform_layers


def read(raw: Fields) -> TransformerConfig:
  for field in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
    if raw.get(field):
      raise ValueError(f"a gpt2 with {field} is not supported")
  dim, heads = raw["n_embd"], raw["n_head"]
  return TransformerConfig(
    vocab_size=raw["vocab_size"],
    dim=dim,
    heads=heads,
    kv_heads=heads,
    head_dim=dim // heads,
    mlp_dim=raw.get("n_inner") or 4 * dim,
    layers=uniform_layers(raw["n_layer"], rope=None),
    norm="layer",
    norm_eps=float(raw["layer_norm_epsilon"]),
    activation=activation(raw["activation_function"]),
    mlp="plain",
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    attention_scale=None if raw["scale_attn_weights"] else 1.0,
    tied=raw["tie_word_embeddings"],
    learned_positions=raw["n_positions"],
    max_position=raw["n_positions"],
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  names = {"gelu_tanh": "gelu_new"}
  return dict(
    vocab_size=config.vocab_size,
    n_positions=config.learned_positions or config.max_position,
    n_ctx=config.learned_positions or config.max_position,
    n_embd=config.dim,
    n_layer=len(config.layers),
    n_head=config.heads,
    n_inner=config.mlp_dim,
    activation_function=names.get(config.activation, config.activation),
    layer_norm_epsilon=config.norm_eps,
    scale_attn_weights=config.attention_scale != 1.0,
    tie_word_embeddings=config.tied,
  )


def recipes(config: TransformerConfig) -> dict[str, Recipe]:
  c = config
  out = {
    "embedding/table": whole("rows", "transformer.wte.weight", c.vocab_size, c.dim),
    "positions/table": whole("rows", "transformer.wpe.weight", c.learned_positions or 0, c.dim),
  }
  for index in range(len(c.layers)):
    ours, theirs = f"layer_{index}", f"transformer.h.{index}"
    fused = [f"{theirs}.attn.c_attn.{kind}" for kind in ("weight", "bias")]
    starts = (0, c.dim, 2 * c.dim)
    kernel = fused_qkv(c, [fused[0]] * 3, [(c.dim, 3 * c.dim)] * 3, starts)
    bias = fused_qkv(c, [fused[1]] * 3, [(3 * c.dim,)] * 3, starts)
    out |= {
      **_norm(f"{ours}/attention_norm", f"{theirs}.ln_1", c.dim),
      f"{ours}/attention/qkv/kernel": Recipe("in_out", kernel),
      f"{ours}/attention/qkv/bias": Recipe("rows", bias),
      **_linear(f"{ours}/attention/out", f"{theirs}.attn.c_proj", c.dim, c.dim),
      **_norm(f"{ours}/mlp_norm", f"{theirs}.ln_2", c.dim),
      **_linear(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc", c.dim, c.mlp_dim),
      **_linear(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj", c.mlp_dim, c.dim),
    }
  out |= _norm("final_norm", "transformer.ln_f", c.dim)
  if not c.tied:
    out["head/kernel"] = whole("out_in", "lm_head.weight", c.vocab_size, c.dim)
  return out


def _norm(path, name, dim) -> dict[str, Recipe]:
  return {f"{path}/{x}": whole("rows", f"{name}.{x}", dim) for x in ("weight", "bias")}


def _linear(path, name, inputs, outputs) -> dict[str, Recipe]:
  return {
    f"{path}/kernel": whole("in_out", f"{name}.weight", inputs, outputs),
    f"{path}/bias": whole("rows", f"{name}.bias", outputs),
  }


GPT2 = Family(
  model_type="gpt2",
  architecture="GPT2LMHeadModel",
  defaults=dict(
    n_positions=1024,
    layer_norm_epsilon=1e-5,
    activation_function="gelu_new",
    scale_attn_weights=True,
    tie_word_embeddings=True,
  ),
  read=read,
  write=write,
  recipes=recipes,
  prefixes=("transformer.", ""),
)
