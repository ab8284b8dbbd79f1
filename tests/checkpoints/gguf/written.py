"""GGUF files for tests, as llama.cpp's converter writes them (conversion/llama.py, gemma.py)."""

import re
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="pip install 'mtjax[gguf]'")

_NAMES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "input_layernorm": "attn_norm",
}
_PRE = {"post_attention_layernorm": "ffn_norm"}
_SANDWICH = {
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}


def tensors_of(oracle, arch: str) -> dict[str, np.ndarray]:
  """Returns the tensors of a model of transformers as the converter of an architecture does."""
  config = oracle.config
  state = {name: value.float().numpy() for name, value in oracle.state_dict().items()}
  if config.tie_word_embeddings:
    state.pop("lm_head.weight", None)
  out = {}
  for name, value in state.items():
    if arch == "llama":
      if name.endswith(("q_proj.weight", "q_proj.bias")):
        value = permuted(value, config.num_attention_heads)
      if name.endswith(("k_proj.weight", "k_proj.bias")):
        value = permuted(value, config.num_key_value_heads)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
      value = value + 1
    out[gguf_name(name, _SANDWICH if arch.startswith("gemma") else _PRE)] = value
  return out


def gguf_name(name: str, norms: dict[str, str]) -> str:
  base, _, suffix = name.rpartition(".")
  block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", base)
  names = {**_NAMES, **norms}
  return f"blk.{block[1]}.{names[block[2]]}.{suffix}" if block else f"{names[base]}.{suffix}"


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
  """`LlamaModel.permute` of the converter."""
  shape = (heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
  return weights.reshape(shape).swapaxes(1, 2).reshape(weights.shape)


def settings_of(oracle) -> dict[str, int | float]:
  config = oracle.config
  rope = config.rope_parameters
  heads, dim = config.num_attention_heads, config.hidden_size
  head_dim = getattr(config, "head_dim", None) or dim // heads
  return {
    "block_count": config.num_hidden_layers,
    "context_length": config.max_position_embeddings,
    "embedding_length": dim,
    "feed_forward_length": config.intermediate_size,
    "attention.head_count": heads,
    "attention.head_count_kv": config.num_key_value_heads,
    "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
    "attention.key_length": head_dim,
    "attention.value_length": head_dim,
    "rope.dimension_count": head_dim,
    "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
  }


def byte_tokens(count: int) -> dict:
  """A byte-level vocabulary of that many tokens, which no test reads."""
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["\u0100\u0101", *(chr(256 + i) for i in range(count - 1))],
    "tokenizer.ggml.token_type": [1] * count,
    "tokenizer.ggml.merges": ["\u0100 \u0101"],
    "tokenizer.ggml.eos_token_id": 0,
  }


def write(
  file: Path, arch: str, fields: dict, tensors: dict[str, np.ndarray], kinds=None, raw=None
) -> Path:
  """Writes a file. `kinds`: name -> type, quantised; `raw`: name -> (type, bytes [rows, n])."""
  writer = gguf.GGUFWriter(str(file), arch)
  for key, value in fields.items():
    add(writer, key, value)
  for name, value in tensors.items():
    kind = gguf.GGMLQuantizationType[(kinds or {}).get(name, "F32")]
    value = np.ascontiguousarray(value, np.float32)
    writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
  for name, (kind, value) in (raw or {}).items():
    writer.add_tensor(name, value, raw_dtype=gguf.GGMLQuantizationType[kind])
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return file


def add(writer, key: str, value) -> None:
  if isinstance(value, bool):
    writer.add_bool(key, value)
  elif isinstance(value, int):
    writer.add_uint32(key, value)
  elif isinstance(value, float):
    writer.add_float32(key, value)
  elif isinstance(value, str):
    writer.add_string(key, value)
  else:
    writer.add_array(key, value)


def written(file: Path, oracle, arch: str, tokens: dict | None = None, more=None) -> Path:
  """Writes an oracle as the converter does."""
  fields = {f"{arch}.{key}": value for key, value in (settings_of(oracle) | (more or {})).items()}
  vocabulary = byte_tokens(oracle.config.vocab_size) if tokens is None else tokens
  return write(file, arch, fields | vocabulary, tensors_of(oracle, arch))


def random_rows(kind: str, rows: int, numbers: int, seed: int = 0) -> np.ndarray:
  """Returns random blocks of a type, with scales that are neither huge nor NaN."""
  size, block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 256, (rows, numbers // size, block), dtype=np.uint8)
  # Where the scales are: ggml-common.h.
  places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
  places |= {"Q4_1": (0, 2), "Q5_1": (0, 2)}
  # The blocks of 256 have a second scale per 16 or 32 numbers, up to 63.
  largest = 1e-4 if kind.endswith("K") else 1e-3
  for place in places.get(kind, (0,)):
    scales = rng.uniform(largest / 10, largest, blocks.shape[:2]).astype(np.float16)
    blocks[:, :, place : place + 2] = scales[..., None].view(np.uint8)
  return blocks.reshape(rows, -1)
