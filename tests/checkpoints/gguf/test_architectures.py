"""Every architecture that a GGUF file may have, against the model that the file was written from.

transformers' own reading of the file is compared where it is right. It is not where it drops a
setting, which llama.cpp uses: rope.scaling.*, rope_freqs.weight, the soft caps and the window's
pattern of Gemma, biases of Llama, and a head's size in Qwen 3 and the scale of scores in Gemma, for
which it takes a default. There the oracle is the model before it was written.
"""

import importlib.util

import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.checkpoints.gguf.rope import llama3_factors
from mtjax.evaluate import parity
from tests.checkpoints.gguf import written

pytestmark = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)

_GEMMA = dict(tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh")
_LLAMA3 = parity._LLAMA3
_LINEAR = dict(rope_type="linear", factor=4.0, rope_theta=10_000.0)

# Name -> architecture, config class and fields of the oracle, settings that it adds to the file.
CASES = {
  "llama": ("llama", "LlamaConfig", {}, {}),
  "llama, tied, wide heads": (
    "llama", "LlamaConfig", dict(tie_word_embeddings=True, head_dim=16), {}
  ),
  "qwen 2": ("qwen2", "Qwen2Config", {}, {}),
  "qwen 3": ("qwen3", "Qwen3Config", dict(head_dim=128, tie_word_embeddings=True), {}),
  "gemma 2": (
    "gemma2",
    "Gemma2Config",
    dict(_GEMMA, head_dim=256, num_hidden_layers=3, sliding_window=7),
    {
      "attention.sliding_window": 7,
      "attn_logit_softcapping": 50.0,
      "final_logit_softcapping": 30.0,
    },
  ),
  "gemma 3": (
    "gemma3",
    "Gemma3TextConfig",
    dict(_GEMMA, head_dim=256, num_hidden_layers=7, sliding_window=7),
    {"attention.sliding_window": 7},
  ),
}  # fmt: skip
# The same, of settings that transformers drops.
MORE = {
  "llama, biases": ("llama", "LlamaConfig", dict(attention_bias=True, mlp_bias=True), {}),
  "llama, linear": (
    "llama",
    "LlamaConfig",
    dict(rope_parameters=_LINEAR),
    {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
  ),
  "qwen 2, yarn": (
    "qwen2",
    "Qwen2Config",
    dict(rope_parameters=parity._YARN),
    {
      "rope.scaling.type": "yarn",
      "rope.scaling.factor": 4.0,
      "rope.scaling.original_context_length": 32,
    },
  ),
  "gemma 2, low caps": (
    "gemma2",
    "Gemma2Config",
    dict(
      _GEMMA,
      head_dim=16,
      query_pre_attn_scalar=16,
      sliding_window=7,
      attn_logit_softcapping=4.0,
      final_logit_softcapping=6.0,
    ),
    {
      "attention.sliding_window": 7,
      "attn_logit_softcapping": 4.0,
      "final_logit_softcapping": 6.0,
    },
  ),
  "gemma 3, scaled, another pattern": (
    "gemma3",
    "Gemma3TextConfig",
    dict(
      _GEMMA,
      head_dim=16,
      query_pre_attn_scalar=16,
      sliding_window=7,
      layer_types=["sliding_attention", "full_attention"],
      rope_parameters=dict(
        sliding_attention=dict(rope_type="default", rope_theta=10_000.0),
        full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1_000_000.0),
      ),
    ),
    {
      "attention.sliding_window": 7,
      "attention.sliding_window_pattern": [True, False],
      "rope.scaling.type": "linear",
      "rope.scaling.factor": 8.0,
    },
  ),
}


@pytest.fixture
def oracle(monkeypatch):
  def make(kind, fields):
    monkeypatch.setitem(parity.CASES, "gguf", (kind, fields))
    return parity.make_oracle("gguf")

  return make


def read_by_transformers(file):
  import transformers

  return transformers.AutoModelForCausalLM.from_pretrained(
    file.parent, gguf_file=file.name, dtype="float32", attn_implementation="eager"
  ).eval()


@pytest.mark.parametrize("name", [*CASES, *MORE])
def test_logits_are_those_of_the_model_before_and_of_transformers(oracle, tmp_path, name):
  arch, kind, fields, settings = (CASES | MORE)[name]
  model = oracle(kind, fields)
  file = written.written(tmp_path / "model.gguf", model, arch, more=settings)
  rows = parity.prompts()
  logits = parity.logits(*checkpoints.load(file), rows)
  assert parity.difference(parity.oracle_logits(model, rows), logits) <= parity.TOLERANCE
  if name in CASES:
    theirs = parity.oracle_logits(read_by_transformers(file), rows)
    assert parity.difference(theirs, logits) <= parity.TOLERANCE


def test_factors_of_llama_3_become_its_scaling(oracle, tmp_path):
  """transformers ignores rope_freqs.weight, llama.cpp divides the frequencies by it."""
  model = oracle("LlamaConfig", dict(rope_parameters=_LLAMA3))
  tensors = written.tensors_of(model, "llama")
  # By the converter's own formula, not ours.
  tensors["rope_freqs.weight"] = np.asarray(converters_factors(_LLAMA3, 8), np.float32)
  fields = {f"llama.{key}": value for key, value in written.settings_of(model).items()}
  file = written.write(tmp_path / "m.gguf", "llama", fields | written.byte_tokens(96), tensors)
  result = parity.compare(model, file)
  assert result.passed, result
  tensors["rope_freqs.weight"][2] *= 1.5
  file = written.write(tmp_path / "m.gguf", "llama", fields | written.byte_tokens(96), tensors)
  with pytest.raises(ValueError, match="rope_freqs.weight of .* factors that are not Llama 3's"):
    checkpoints.load(file)


def converters_factors(rope, dim):
  """`generate_extra_tensors` of llama.cpp's conversion/llama.py."""
  low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
  high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
  factors = []
  for i in range(0, dim, 2):
    length = 2 * np.pi * rope["rope_theta"] ** (i / dim)
    if length < high:
      factors.append(1.0)
    elif length > low:
      factors.append(rope["factor"])
    else:
      smooth = rope["original_max_position_embeddings"] / length - rope["low_freq_factor"]
      smooth /= rope["high_freq_factor"] - rope["low_freq_factor"]
      factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
  return factors


def test_factors_are_those_of_llama_3_1():
  rope = dict(_LLAMA3, original_max_position_embeddings=8192)
  expected = converters_factors(rope, 128)
  assert 1 < len(set(expected)) and expected[0] == 1 and expected[-1] == 8
  np.testing.assert_allclose(llama3_factors(500_000.0, 128, 8.0, 8192), expected, rtol=1e-6)


def test_a_part_of_a_permuted_parameter_is_read_as_the_whole(oracle, tmp_path):
  """Devices read parts: their rows begin and end within heads, whose rows are in another order."""
  file = written.written(tmp_path / "m.gguf", oracle("LlamaConfig", {}), "llama")
  with checkpoints.gguf.GgufTensors(file) as stored:
    name = "model.layers.0.self_attn.q_proj.weight"
    whole = stored.rows(name, 0, 32).copy()
    for start, stop in [(0, 1), (3, 9), (5, 7), (30, 32), (8, 16)]:
      np.testing.assert_array_equal(stored.rows(name, start, stop), whole[start:stop])
