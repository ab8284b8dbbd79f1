"""DiffusionGemma, whose encoder and decoder are one stack of layers; the text half of its files."""

from typing import Any

from mtjax.checkpoints.families.family import (
  ACTIVATION_NAMES,
  FULL,
  SLIDING,
  Family,
  activation,
  layer_types,
)
from mtjax.checkpoints.families.fields import CONFIG, KINDS, ROPE, Fields
from mtjax.checkpoints.layout import Piece, Recipe, whole
from mtjax.models import CanvasLayer, DiffusionGemmaConfig

_TEXT_DEFAULTS = dict(
  vocab_size=262144,
  hidden_size=2304,
  intermediate_size=9216,
  num_hidden_layers=30,
  num_attention_heads=8,
  num_key_value_heads=4,
  head_dim=256,
  hidden_activation="gelu_pytorch_tanh",
  max_position_embeddings=131072,
  rms_norm_eps=1e-6,
  attention_bias=False,
  sliding_window=512,
  final_logit_softcapping=30.0,
  global_head_dim=512,
)
_ROPES = {
  SLIDING: dict(rope_type="default", rope_theta=10_000.0),
  FULL: dict(rope_type="proportional", partial_rotary_factor=0.25, rope_theta=1_000_000.0),
}
# Our norms -> theirs.
_NORMS = {
  "attention_norm": "input_layernorm",
  "attention_post_norm": "post_attention_layernorm",
  "mlp_norm": "pre_feedforward_layernorm",
  "dense_post_norm": "post_feedforward_layernorm_1",
  "experts_norm": "pre_feedforward_layernorm_2",
  "experts_post_norm": "post_feedforward_layernorm_2",
  "mlp_post_norm": "post_feedforward_layernorm",
}


def read(raw: Fields) -> DiffusionGemmaConfig:
  text = Fields({**_TEXT_DEFAULTS, **raw["text_config"]}, CONFIG, "text_config of config.json")
  if text["attention_bias"]:
    raise ValueError("a diffusion_gemma with attention_bias is not supported")
  if text.get("use_bidirectional_attention") == "all":
    raise ValueError("a diffusion_gemma whose encoder is not causal is not supported")
  window = text["sliding_window"]
  types = layer_types(text, window, lambda index: SLIDING if (index + 1) % 6 else FULL)
  # As in transformers, whatever the file says.
  types = [*types[:-1], FULL]
  return DiffusionGemmaConfig(
    vocab_size=text["vocab_size"],
    dim=text["hidden_size"],
    heads=text["num_attention_heads"],
    mlp_dim=text["intermediate_size"],
    experts=text["num_experts"],
    top_experts=text["top_k_experts"],
    expert_dim=text["moe_intermediate_size"],
    layers=tuple(_layer(text, index, kind, window) for index, kind in enumerate(types)),
    canvas_length=raw["canvas_length"],
    norm_eps=float(text["rms_norm_eps"]),
    activation=activation(text["hidden_activation"]),
    logit_soft_cap=text["final_logit_softcapping"],
    max_position=text["max_position_embeddings"],
    tied=raw["tie_word_embeddings"],
  )


def write(config: DiffusionGemmaConfig) -> dict[str, Any]:
  types = [FULL if layer.window is None else SLIDING for layer in config.layers]
  near = next((layer for layer in config.layers if layer.window is not None), None)
  last = config.layers[-1]
  ropes = {FULL: dict(_ROPES[FULL], rope_theta=last.theta)}
  ropes[FULL]["partial_rotary_factor"] = last.rotary_share
  ropes[SLIDING] = dict(_ROPES[SLIDING], rope_theta=10_000.0 if near is None else near.theta)
  text = dict(
    model_type="diffusion_gemma_text",
    vocab_size=config.vocab_size,
    hidden_size=config.dim,
    intermediate_size=config.mlp_dim,
    num_hidden_layers=len(config.layers),
    num_attention_heads=config.heads,
    num_key_value_heads=config.kv_heads,
    head_dim=config.head_dim,
    hidden_activation=ACTIVATION_NAMES[config.activation],
    max_position_embeddings=config.max_position,
    rms_norm_eps=config.norm_eps,
    attention_bias=False,
    sliding_window=512 if near is None else near.window,
    layer_types=types,
    per_layer_config={
      str(index): dict(head_dim=layer.head_dim, num_key_value_heads=layer.kv_heads)
      for index, layer in enumerate(config.layers)
      if layer.window is None
    },
    rope_parameters=ropes,
    final_logit_softcapping=config.logit_soft_cap,
    num_experts=config.experts,
    top_k_experts=config.top_experts,
    moe_intermediate_size=config.expert_dim,
  )
  return dict(text_config=text, canvas_length=config.canvas_length, tie_word_embeddings=config.tied)


def recipes(config: DiffusionGemmaConfig) -> dict[str, Recipe]:
  c, base = config, "model.decoder"
  out = {"embedding/table": whole("rows", f"{base}.embed_tokens.weight", c.vocab_size, c.dim)}
  for index, layer in enumerate(c.layers):
    ours, theirs = f"layer_{index}", f"{base}.layers.{index}"
    each = {
      **_attention(c, layer, f"{theirs}.self_attn"),
      **_mlp(c, f"{theirs}.mlp"),
      **{x: whole("rows", f"{theirs}.{y}.weight", c.dim) for x, y in _weights(_NORMS)},
      "router/proj/kernel": whole("out_in", f"{theirs}.router.proj.weight", c.experts, c.dim),
      "router/scale": whole("rows", f"{theirs}.router.scale", c.dim),
      "router/expert_scale": whole("rows", f"{theirs}.router.per_expert_scale", c.experts),
      "experts/gate_up": whole(
        "rows", f"{theirs}.experts.gate_up_proj", c.experts, 2 * c.expert_dim, c.dim
      ),
      "experts/down": whole("rows", f"{theirs}.experts.down_proj", c.experts, c.dim, c.expert_dim),
      "canvas_scale": whole("rows", f"{theirs}.layer_scalar", 1),
      "clean_scale": whole("rows", f"model.encoder.language_model.layers.{index}.layer_scalar", 1),
    }
    out |= {f"{ours}/{path}": recipe for path, recipe in each.items()}
  name = f"{base}.self_conditioning"
  out["self_conditioning/norm/weight"] = whole("rows", f"{name}.pre_norm.weight", c.dim)
  out |= {f"self_conditioning/{path}": recipe for path, recipe in _mlp(c, name).items()}
  out["final_norm/weight"] = whole("rows", f"{base}.norm.weight", c.dim)
  if not c.tied:
    out["head/kernel"] = whole("out_in", "lm_head.weight", c.vocab_size, c.dim)
  return out


def refusal(config: DiffusionGemmaConfig) -> str | None:
  if config.tied:
    return None
  return "transformers gives a model with a head of its own two stacks of layers"


def _layer(text: Fields, index: int, kind: str, window: int) -> CanvasLayer:
  every = Fields(text.get("rope_parameters") or _ROPES, KINDS, "rope_parameters")
  rope = Fields(every.get(kind) or {}, ROPE, f"rope_parameters, {kind}")
  name, share = rope.get("rope_type") or "default", rope.get("partial_rotary_factor") or 1.0
  if name not in ("default", "proportional") or (rope.get("factor") or 1) != 1:
    raise ValueError(
      f"rotary positions of the type {name!r} are not supported for {kind}, only 'default' and "
      "'proportional' without a factor"
    )
  if name == "default" and share != 1:
    raise ValueError(f"partial_rotary_factor of the default type must be 1, got {share}")
  theta, share = float(rope.get("rope_theta") or 1e4), float(share)
  if kind == SLIDING:
    heads, size = text["num_key_value_heads"] or text["num_attention_heads"], text["head_dim"]
    return CanvasLayer(heads, size, window, theta, share)
  heads = text.get("num_global_key_value_heads") or text["num_key_value_heads"]
  own = _by_number(text.get("per_layer_config") or {}).get(index)
  size = text["global_head_dim"]
  if own is not None:
    if not isinstance(own, dict):
      raise ValueError(f"per_layer_config of layer {index} must be an object, got {own!r:.80}")
    each = Fields(own, CONFIG, f"per_layer_config, {index}")
    heads = each.get("num_key_value_heads") or text["num_key_value_heads"]
    size = each.get("head_dim") or text["head_dim"]
  return CanvasLayer(heads, size, None, theta, share, values="keys")


def _by_number(settings: dict[str, Any]) -> dict[int, Any]:
  """Returns the settings of layers by number; transformers writes "05" among more than ten."""
  if not all(key.isdecimal() for key in settings):
    raise ValueError(f"per_layer_config must have the numbers of layers, got {list(settings)}")
  return {int(key): value for key, value in settings.items()}


def _attention(c: DiffusionGemmaConfig, layer: CanvasLayer, base: str) -> dict[str, Recipe]:
  sizes = {"q": c.heads, "k": layer.kv_heads}
  if layer.values == "own":
    sizes["v"] = layer.kv_heads
  out = {
    f"attention/{x}/kernel": whole(
      "out_in", f"{base}.{x}_proj.weight", heads * layer.head_dim, c.dim
    )
    for x, heads in sizes.items()
  }
  width = c.heads * layer.head_dim
  out["attention/out/kernel"] = whole("out_in", f"{base}.o_proj.weight", c.dim, width)
  norms = {f"attention/{x}_norm/weight": f"{base}.{x}_norm.weight" for x in "qk"}
  return out | {path: whole("rows", name, layer.head_dim) for path, name in norms.items()}


def _mlp(c: DiffusionGemmaConfig, base: str) -> dict[str, Recipe]:
  shape = (c.mlp_dim, c.dim)
  both = tuple(Piece(f"{base}.{x}_proj.weight", shape, 0, c.mlp_dim) for x in ("gate", "up"))
  return {
    "mlp/gate_up/kernel": Recipe("out_in", both),
    "mlp/down/kernel": whole("out_in", f"{base}.down_proj.weight", c.dim, c.mlp_dim),
  }


def _weights(norms: dict[str, str]) -> list[tuple[str, str]]:
  return [(f"{ours}/weight", theirs) for ours, theirs in norms.items()]


DIFFUSION_GEMMA = Family(
  model_type="diffusion_gemma",
  architecture="DiffusionGemmaForBlockDiffusion",
  defaults=dict(canvas_length=256, tie_word_embeddings=True),
  read=read,
  write=write,
  recipes=recipes,
  prefixes=("model.decoder.",),
  heads=("lm_head.weight",),
  refusal=refusal,
  config=DiffusionGemmaConfig,
)
