"""The architectures of GGUF files that our families can compute, and what each writes differently.

Names of tensors and what the converter does to them: llama.cpp's conversion/*.py and gguf-py's
tensor_mapping.py; what the settings mean: src/models/*.cpp.
"""

import dataclasses
import re
from collections.abc import Mapping

from mtjax.data.gguf.header import GgufHeader

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_OUTSIDE = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
}
_INSIDE = {
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
  "attn_norm": "input_layernorm",
}
# With norms before the branches only, and with norms around them.
_PRE = {"ffn_norm": "post_attention_layernorm"}
_SANDWICH = {
  "post_attention_norm": "post_attention_layernorm",
  "ffn_norm": "pre_feedforward_layernorm",
  "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """One general.architecture of GGUF."""

  model_type: str  # the family of `mtjax.checkpoints.families`
  norms: Mapping[str, str]
  # q and k have the two numbers that rotate together as neighbours, not half a head apart.
  has_neighbour_rope: bool = False
  norm_shift: float = 0.0  # what the stored norms have more than the family's
  # Settings beside those of every architecture.
  keys: frozenset[str] = frozenset()

  def name_of(self, name: str) -> str:
    """Returns the name of a tensor in transformers; an unknown one is returned as it is."""
    block = _BLOCK.fullmatch(name)
    inside = {**_INSIDE, **self.norms}
    if block is None or block[2] not in inside:
      return _OUTSIDE.get(name, name)
    return f"model.layers.{block[1]}.{inside[block[2]]}.{block[3]}"

  def rotates(self, name: str) -> bool:
    """Returns True for the projections whose outputs are rotated."""
    block = _BLOCK.fullmatch(name)
    return block is not None and block[2] in ("attn_q", "attn_k")

  def shift_of(self, name: str) -> float:
    return self.norm_shift if name.endswith("norm.weight") else 0.0


_GEMMA_KEYS = frozenset(
  {
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attn_logit_softcapping",
    "final_logit_softcapping",
  }
)

ARCHITECTURES = {
  "llama": Architecture("llama", _PRE, has_neighbour_rope=True),
  "qwen2": Architecture("qwen2", _PRE),
  "qwen3": Architecture("qwen3", _PRE),
  "gemma2": Architecture("gemma2", _SANDWICH, norm_shift=1.0, keys=_GEMMA_KEYS),
  "gemma3": Architecture(
    "gemma3_text",
    _SANDWICH,
    norm_shift=1.0,
    keys=(_GEMMA_KEYS - {"attn_logit_softcapping"}) | {"rope.freq_base_swa"},
  ),
}


def architecture_of(header: GgufHeader) -> tuple[str, Architecture]:
  """Returns the name of a file's architecture, which begins the keys of its settings.

  Raises ValueError for an unknown one, with the known ones, and for a file that is no whole model.
  """
  kind = header.text("general.type", "model")
  if kind != "model":
    raise ValueError(f"{header.file} is no model: its general.type is {kind!r:.40}")
  name = header.text("general.architecture")
  if name not in ARCHITECTURES:
    raise ValueError(
      f"general.architecture of {header.file} is {name!r:.40}, which is not supported; known: "
      f"{', '.join(ARCHITECTURES)}"
    )
  return name, ARCHITECTURES[name]
