"""The tensor names of Llama, which nearly every later family has kept."""

from collections.abc import Sequence

from mtjax.checkpoints.layout import Piece, Recipe, whole
from mtjax.models import TransformerConfig

# Our norms -> theirs: with norms after the branches, the same name means something else.
_NORMS = {
  "pre": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
  "post": {
    "attention_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
  },
  "sandwich": {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
  },
}


def decoder_recipes(config: TransformerConfig) -> dict[str, Recipe]:
  """Returns {parameter path: where it is stored}."""
  c = config
  out = {"embedding/table": whole("rows", "model.embed_tokens.weight", c.vocab_size, c.dim)}
  for index in range(len(c.layers)):
    out |= {
      f"layer_{index}/{path}": recipe for path, recipe in _layer(c, f"model.layers.{index}").items()
    }
  out["final_norm/weight"] = whole("rows", "model.norm.weight", c.dim)
  if not c.tied:
    out["head/kernel"] = whole("out_in", "lm_head.weight", c.vocab_size, c.dim)
  return out


def fused_qkv(
  config: TransformerConfig,
  names: Sequence[str],
  shapes: Sequence[tuple[int, ...]],
  starts: Sequence[int] = (0, 0, 0),
) -> tuple[Piece, ...]:
  """Returns pieces of three tensors, or of ranges of one: per key/value head its queries, k, v."""
  width, group = config.head_dim, config.group
  pieces = []
  for head in range(config.kv_heads):
    for name, shape, start, count in zip(names, shapes, starts, (group, 1, 1), strict=True):
      first = start + head * count * width
      pieces.append(Piece(name, shape, first, first + count * width))
  return tuple(pieces)


def _layer(c, base) -> dict[str, Recipe]:
  norms = _NORMS[c.norm_placement]
  out = {
    f"{ours}/weight": whole("rows", f"{base}.{theirs}.weight", c.dim)
    for ours, theirs in norms.items()
  }
  widths = [c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim]
  projections = [f"{base}.self_attn.{x}_proj" for x in "qkv"]
  out["attention/qkv/kernel"] = Recipe(
    "out_in",
    fused_qkv(c, [f"{name}.weight" for name in projections], [(w, c.dim) for w in widths]),
  )
  if c.qkv_bias:
    biases = [f"{name}.bias" for name in projections]
    out["attention/qkv/bias"] = Recipe("rows", fused_qkv(c, biases, [(w,) for w in widths]))
  if c.qk_norm != "none":
    for ours, width in zip("qk", widths, strict=False):
      size = c.head_dim if c.qk_norm == "head" else width
      name = f"{base}.self_attn.{ours}_norm.weight"
      out[f"attention/{ours}_norm/weight"] = whole("rows", name, size)
  out |= _linear("attention/out", f"{base}.self_attn.o_proj", (c.dim, widths[0]), c.out_bias)
  up = [f"{base}.mlp.{x}_proj" for x in ("gate", "up")]
  out["mlp/gate_up/kernel"] = Recipe(
    "out_in", tuple(Piece(f"{name}.weight", (c.mlp_dim, c.dim), 0, c.mlp_dim) for name in up)
  )
  if c.mlp_bias:
    out["mlp/gate_up/bias"] = Recipe(
      "rows", tuple(Piece(f"{name}.bias", (c.mlp_dim,), 0, c.mlp_dim) for name in up)
    )
  return out | _linear("mlp/down", f"{base}.mlp.down_proj", (c.dim, c.mlp_dim), c.mlp_bias)


def _linear(path, name, shape, bias) -> dict[str, Recipe]:
  out = {f"{path}/kernel": whole("out_in", f"{name}.weight", *shape)}
  if bias:
    out[f"{path}/bias"] = whole("rows", f"{name}.bias", shape[0])
  return out
