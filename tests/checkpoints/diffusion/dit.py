"""Tiny random MDLM, BD3-LM and SetDLM models in their layouts, and their logits in numpy."""

import numpy as np

from tests.checkpoints.diffusion.oracles import VOCAB

BD3LM = dict(
  model_type="bd3lm",
  architectures=["BD3LM"],
  adaln=True,
  block_size=4,
  causal=False,
  cond_dim=6,
  cross_attn=True,
  hidden_dim=16,
  model_length=32,
  n_blocks=2,
  n_heads=2,
  time_conditioning=False,
  vocab_size=VOCAB,
)
MDLM = {k: v for k, v in BD3LM.items() if k not in ("block_size", "cross_attn", "adaln")}
MDLM |= dict(model_type="mdlm", architectures=["MDLM"])

# As the code of SetDLM writes it, also for the other two.
NESTED = dict(
  model_type="bd3lm",
  architectures=["SetDLM"],
  block_size=8,
  length=32,
  mask_token_id=48,
  vocab_size=VOCAB,
)
BACKBONE = {
  "_target_": "src.backbone.dit.DIT",
  "adaln": False,
  "attn_backend": "sdpa",
  "causal_attention": False,
  "cond_dim": 6,
  "hidden_size": 16,
  "length": 32,
  "n_heads": 2,
  "num_layers": 2,
  "tie_word_embeddings": True,
  "vocab_size": VOCAB,
}


def shapes(dim, width, layers):
  """Returns the stored shapes; `width` None: without adaptive norms."""
  base = "backbone"
  out = {f"{base}.vocab_embed.embedding": (VOCAB, dim)}

  def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

  for i in range(layers):
    block = f"{base}.blocks.{i}"
    out |= {f"{block}.norm1.weight": (dim,), f"{block}.norm2.weight": (dim,)}
    out |= {f"{block}.attn_qkv.weight": (3 * dim, dim), f"{block}.attn_out.weight": (dim, dim)}
    out |= linear(f"{block}.mlp.0", 4 * dim, dim) | linear(f"{block}.mlp.2", dim, 4 * dim)
    if width is not None:
      out |= linear(f"{block}.adaLN_modulation", 6 * dim, width)
  last = f"{base}.output_layer"
  out |= {f"{last}.norm_final.weight": (dim,)} | linear(f"{last}.linear", VOCAB, dim)
  if width is not None:
    out |= linear(f"{last}.adaLN_modulation", 2 * dim, width)
    out |= linear(f"{base}.sigma_map.mlp.0", width, 256)
    out |= linear(f"{base}.sigma_map.mlp.2", width, width)
  return out


def logits(tensors, heads, layers, token, position, visible):
  """Returns logits [T, V] by the forward pass of models/hf/modeling_bd3lm.py at the time 0.

  Entry i stands at position[i] and sees entry j if visible[i, j].
  """
  weight = {name: value.astype(np.float64) for name, value in tensors.items()}
  dim = weight["backbone.vocab_embed.embedding"].shape[1]
  size = dim // heads
  adaptive = "backbone.sigma_map.mlp.0.weight" in weight

  def linear(x, name):
    return x @ weight[f"{name}.weight"].T + weight.get(f"{name}.bias", 0)

  def silu(x):
    return x / (1 + np.exp(-x))

  def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

  def norm(x, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5) * weight[f"{name}.weight"]

  def modulations(name, count):
    if not adaptive:
      return [np.zeros(dim), np.zeros(dim), np.ones(dim)] * (count // 3) or [0, 0]
    return np.split(linear(vector, f"{name}.adaLN_modulation"), count)

  if adaptive:
    time = np.concatenate([np.cos(np.zeros(128)), np.sin(np.zeros(128))])
    hidden = silu(linear(time, "backbone.sigma_map.mlp.0"))
    vector = silu(linear(hidden, "backbone.sigma_map.mlp.2"))
  angle = np.outer(position, 10_000.0 ** -(np.arange(0, size, 2) / size))[:, None]

  def rotated(x):
    one, two = x[..., : size // 2], x[..., size // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], -1)

  x = weight["backbone.vocab_embed.embedding"][token]
  for i in range(layers):
    block = f"backbone.blocks.{i}"
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = modulations(block, 6)
    h = norm(x, f"{block}.norm1") * (1 + scale) + shift
    q, k, v = linear(h, f"{block}.attn_qkv").reshape(len(token), 3, heads, size).swapaxes(0, 1)
    scores = np.einsum("ihd,jhd->hij", rotated(q), rotated(k)) / np.sqrt(size)
    scores = np.where(visible, scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    h = np.einsum("hij,jhd->ihd", share, v).reshape(len(token), -1)
    x = x + gate * linear(h, f"{block}.attn_out")
    h = norm(x, f"{block}.norm2") * (1 + scale_mlp) + shift_mlp
    x = x + gate_mlp * linear(gelu(linear(h, f"{block}.mlp.0")), f"{block}.mlp.2")
  shift, scale = modulations("backbone.output_layer", 2)
  x = norm(x, "backbone.output_layer.norm_final") * (1 + scale) + shift
  return linear(x, "backbone.output_layer.linear")
