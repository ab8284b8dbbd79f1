"""Tiny random models in the layouts of their authors, and their logits by other code than ours."""

import json

import numpy as np
from safetensors import numpy as safetensors

VOCAB = 50
TOKENS = np.random.default_rng(7).integers(0, VOCAB, (3, 13)).astype(np.int32)

LLADA = dict(
  model_type="llada",
  architectures=["LLaDAModelLM"],
  activation_type="silu",
  alibi=False,
  bias_for_layer_norm=False,
  block_type="llama",
  d_model=16,
  embedding_size=VOCAB,
  include_bias=False,
  include_qkv_bias=False,
  layer_norm_type="rms",
  mask_token_id=43,
  max_sequence_length=64,
  mlp_hidden_size=24,
  n_heads=4,
  n_kv_heads=4,
  n_layers=2,
  rms_norm_eps=1e-5,
  rope=True,
  rope_theta=500.0,
  vocab_size=VOCAB,
  weight_tying=False,
)


def write(folder, config, tensors):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config))
  safetensors.save_file(tensors, folder / "model.safetensors")


def random_tensors(shapes, seed=0):
  """Returns float32 tensors; norms are near one, biases are not zero."""
  rng = np.random.default_rng(seed)
  out = {}
  for name, shape in shapes.items():
    noise = rng.standard_normal(shape).astype(np.float32)
    is_norm = "norm" in name or ".ln_f." in name
    out[name] = 1 + 0.2 * noise if is_norm else 0.3 * noise
  return out


def llada_shapes(config):
  dim, mlp, rows = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
  narrow = config["n_kv_heads"] * dim // config["n_heads"]
  base = "model.transformer"
  shapes = {f"{base}.wte.weight": (rows, dim), f"{base}.ln_f.weight": (dim,)}
  for i in range(config["n_layers"]):
    block = f"{base}.blocks.{i}"
    shapes |= {f"{block}.{x}_norm.weight": (dim,) for x in ("attn", "ff")}
    shapes |= {
      f"{block}.q_proj.weight": (dim, dim),
      f"{block}.k_proj.weight": (narrow, dim),
      f"{block}.v_proj.weight": (narrow, dim),
      f"{block}.attn_out.weight": (dim, dim),
      f"{block}.ff_proj.weight": (mlp, dim),
      f"{block}.up_proj.weight": (mlp, dim),
      f"{block}.ff_out.weight": (dim, mlp),
    }
    if config["include_qkv_bias"]:
      widths = dict(q=dim, k=narrow, v=narrow)
      shapes |= {f"{block}.{x}_proj.bias": (width,) for x, width in widths.items()}
  if not config["weight_tying"]:
    shapes[f"{base}.ff_out.weight"] = (rows, dim)
  return shapes


def llada_logits(config, tensors, token):
  """Returns logits [L, V] of one text by LLaDA's forward pass, in numpy and float64.

  It is that of `LLaDALlamaBlock` in modeling_llada.py: no mask of any kind, keys repeated for the
  queries of their group, rotary positions in halves, and silu(ff_proj) * up_proj.
  """
  weight = {name: value.astype(np.float64) for name, value in tensors.items()}
  heads, size = config["n_heads"], config["d_model"] // config["n_heads"]
  groups = heads // config["n_kv_heads"]
  frequency = config["rope_theta"] ** -(np.arange(0, size, 2) / size)
  angle = np.outer(np.arange(len(token)), frequency)[:, None]
  base = "model.transformer"

  def linear(x, name):
    return x @ weight[f"{name}.weight"].T + weight.get(f"{name}.bias", 0)

  def norm(x, name):
    scale = 1 / np.sqrt(np.mean(x**2, -1, keepdims=True) + config["rms_norm_eps"])
    return x * scale * weight[f"{name}.weight"]

  def rotated(x):
    one, two = x[..., : size // 2], x[..., size // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], -1)

  x = weight[f"{base}.wte.weight"][token]
  for i in range(config["n_layers"]):
    block = f"{base}.blocks.{i}"
    h = norm(x, f"{block}.attn_norm")
    q, k, v = (linear(h, f"{block}.{y}_proj").reshape(len(token), -1, size) for y in "qkv")
    q, k = rotated(q), rotated(k)
    k, v = (np.repeat(y, groups, axis=1) for y in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    out = np.einsum("hij,jhd->ihd", share, v).reshape(len(token), -1)
    x = x + linear(out, f"{block}.attn_out")
    h = norm(x, f"{block}.ff_norm")
    gate = linear(h, f"{block}.ff_proj")
    h = gate / (1 + np.exp(-gate)) * linear(h, f"{block}.up_proj")
    x = x + linear(h, f"{block}.ff_out")
  x = norm(x, f"{base}.ln_f")
  head = "wte" if config["weight_tying"] else "ff_out"
  return x @ weight[f"{base}.{head}.weight"].T


def qwen(kind, **settings):
  """Returns a random Qwen of transformers, 2 or 3, with the weights of a tiny diffusion model."""
  import torch
  import transformers

  torch.manual_seed(0)
  torch.set_num_threads(1)
  config = getattr(transformers, f"{kind}Config")(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rope_parameters=dict(rope_type="default", rope_theta=500.0),
    attn_implementation="eager",
    **settings,
  )
  model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      noise = torch.randn_like(parameter)
      parameter.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.2 * noise)
  return model


def qwen_logits(model, token, visible):
  """Returns logits [B, L, V] where entry i sees entry j if `visible[i, j]`."""
  import torch

  bias = torch.where(torch.tensor(visible), 0.0, -torch.inf)[None, None]
  mask = bias.expand(len(token), 1, *visible.shape)
  with torch.no_grad():
    return model(torch.tensor(token, dtype=torch.long), attention_mask=mask).logits.numpy()
