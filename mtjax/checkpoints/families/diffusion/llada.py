"""LLaDA (2502.09992) and LLaDA 1.5: a Llama in which all entries see each other."""

from typing import Any

from mtjax.checkpoints.families.decoder_tensors import fused_qkv
from mtjax.checkpoints.families.family import (
  ACTIVATION_NAMES,
  Family,
  activation,
  heads_must_divide,
)
from mtjax.checkpoints.families.fields import Fields
from mtjax.checkpoints.families.rope import only_rope
from mtjax.checkpoints.layout import Piece, Recipe, whole
from mtjax.models import Rope, TransformerConfig, uniform_layers

# Settings that change logits -> the only values that the network supports.
_FIXED: dict[str, tuple[Any, ...]] = {
  "block_type": ("llama",),
  "layer_norm_type": ("rms",),
  "layer_norm_with_affine": (True,),
  "attention_layer_norm": (False,),
  "bias_for_layer_norm": (False, None),
  "rope": (True,),
  "alibi": (False,),
  "include_bias": (False,),
  "input_emb_norm": (False,),
  "scale_logits": (False,),
  "block_group_size": (1,),
}


def read(raw: Fields) -> TransformerConfig:
  for name, values in _FIXED.items():
    if raw[name] not in values:
      raise ValueError(f"a llada with {name} {raw[name]!r} is not supported, only {values[0]!r}")
  dim, heads = raw["d_model"], raw["n_heads"]
  if dim % heads:
    raise ValueError(f"n_heads ({heads}) must divide d_model ({dim})")
  return TransformerConfig(
    vocab_size=_rows(raw),
    dim=dim,
    heads=heads,
    kv_heads=_kv_heads(raw),
    head_dim=dim // heads,
    mlp_dim=raw.get("mlp_hidden_size") or raw["mlp_ratio"] * dim,
    layers=uniform_layers(raw["n_layers"], rope=Rope(theta=float(raw["rope_theta"]))),
    norm_eps=float(raw["rms_norm_eps"]),
    activation=activation(raw["activation_type"]),
    qkv_bias=raw.get("include_qkv_bias") or False,
    tied=raw["weight_tying"],
    max_position=raw["max_sequence_length"],
    predicts="masked",
    mask_id=raw["mask_token_id"],
  )


def write(config: TransformerConfig) -> dict[str, Any]:
  fixed = {name: values[0] for name, values in _FIXED.items()}
  return dict(
    fixed,
    vocab_size=config.vocab_size,
    embedding_size=config.vocab_size,
    d_model=config.dim,
    n_heads=config.heads,
    n_kv_heads=config.kv_heads,
    multi_query_attention=None,
    n_layers=len(config.layers),
    mlp_hidden_size=config.mlp_dim,
    rms_norm_eps=config.norm_eps,
    activation_type=ACTIVATION_NAMES[config.activation],
    include_qkv_bias=config.qkv_bias,
    weight_tying=config.tied,
    max_sequence_length=config.max_position,
    rope_theta=only_rope(config).theta,
    mask_token_id=config.mask_id,
    # Their class has dropout unless the file says otherwise.
    **dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0),
  )


def recipes(config: TransformerConfig) -> dict[str, Recipe]:
  c = config
  base = "model.transformer"
  out = {"embedding/table": whole("rows", f"{base}.wte.weight", c.vocab_size, c.dim)}
  for index in range(len(c.layers)):
    layer = _layer(c, f"{base}.blocks.{index}")
    out |= {f"layer_{index}/{path}": recipe for path, recipe in layer.items()}
  out["final_norm/weight"] = whole("rows", f"{base}.ln_f.weight", c.dim)
  if not c.tied:
    out["head/kernel"] = whole("out_in", f"{base}.ff_out.weight", c.vocab_size, c.dim)
  return out


def refusal(config: TransformerConfig) -> str | None:
  if config.activation == "gelu_tanh":
    return "its class has the exact gelu, not gelu_tanh"
  return heads_must_divide(config)


def _layer(c: TransformerConfig, base: str) -> dict[str, Recipe]:
  widths = [c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim]
  names = [f"{base}.{x}_proj" for x in "qkv"]
  kernels = fused_qkv(c, [f"{name}.weight" for name in names], [(w, c.dim) for w in widths])
  gate_up = tuple(
    Piece(f"{base}.{x}_proj.weight", (c.mlp_dim, c.dim), 0, c.mlp_dim) for x in ("ff", "up")
  )
  out = {
    "attention_norm/weight": whole("rows", f"{base}.attn_norm.weight", c.dim),
    "attention/qkv/kernel": Recipe("out_in", kernels),
    "attention/out/kernel": whole("out_in", f"{base}.attn_out.weight", c.dim, widths[0]),
    "mlp_norm/weight": whole("rows", f"{base}.ff_norm.weight", c.dim),
    "mlp/gate_up/kernel": Recipe("out_in", gate_up),
    "mlp/down/kernel": whole("out_in", f"{base}.ff_out.weight", c.dim, c.mlp_dim),
  }
  if c.qkv_bias:
    biases = fused_qkv(c, [f"{name}.bias" for name in names], [(w,) for w in widths])
    out["attention/qkv/bias"] = Recipe("rows", biases)
  return out


def _rows(raw: Fields) -> int:
  """Returns the number of rows of the table, of which the tokenizer may use fewer."""
  rows = raw.get("embedding_size") or raw["vocab_size"]
  if rows < raw["vocab_size"]:
    raise ValueError(f"embedding_size ({rows}) must be at least vocab_size ({raw['vocab_size']})")
  return rows


def _kv_heads(raw: Fields) -> int:
  heads, given, single = raw["n_heads"], raw.get("n_kv_heads"), raw.get("multi_query_attention")
  if given is None:
    return 1 if single else heads
  if single is not None and given != (1 if single else heads):
    raise ValueError(f"n_kv_heads ({given}) contradicts multi_query_attention ({single})")
  return given


LLADA = Family(
  model_type="llada",
  architecture="LLaDAModelLM",
  # Those of its class are a GPT-2's, which the published files all replace.
  defaults=dict(
    d_model=768,
    n_heads=12,
    n_layers=12,
    mlp_ratio=4,
    activation_type="swiglu",
    block_type="sequential",
    layer_norm_type="default",
    layer_norm_with_affine=True,
    attention_layer_norm=False,
    bias_for_layer_norm=None,
    rope=False,
    alibi=False,
    include_bias=False,
    include_qkv_bias=False,
    input_emb_norm=False,
    scale_logits=False,
    block_group_size=1,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_sequence_length=1024,
    vocab_size=50257,
    embedding_size=50304,
    weight_tying=True,
    mask_token_id=50256,
  ),
  read=read,
  write=write,
  recipes=recipes,
  prefixes=("model.", ""),
  heads=("model.transformer.ff_out.weight", "transformer.ff_out.weight"),
  refusal=refusal,
)
