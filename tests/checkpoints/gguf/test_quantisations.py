"""Every type of tensors that a GGUF file may have: its numbers, and logits of models made of it."""

import importlib.util

import jax
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.checkpoints.gguf import blocks
from mtjax.checkpoints.gguf.kinds import KINDS
from mtjax.evaluate import parity
from tests.checkpoints.gguf import written
from tests.checkpoints.gguf.written import gguf

QUANTISED = [kind.name for kind in KINDS.values() if kind.numbers > 1]
FLOATS = ["F32", "F16", "BF16"]
SIZES = {
  "block_count": 1,
  "context_length": 128,
  "embedding_length": 256,
  "feed_forward_length": 256,
  "attention.head_count": 4,
  "attention.head_count_kv": 2,
  "attention.layer_norm_rms_epsilon": 1e-5,
}
MATRICES = {
  "token_embd": 96,
  "blk.0.attn_q": 256,
  "blk.0.attn_k": 128,
  "blk.0.attn_v": 128,
  "blk.0.attn_output": 256,
  "blk.0.ffn_gate": 256,
  "blk.0.ffn_up": 256,
  "blk.0.ffn_down": 256,
}

needs_torch = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)


def model_of(file, kind):
  """Writes a Llama of one layer whose matrices all have that type."""
  norms = {"blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"}
  tensors = {f"{name}.weight": np.ones(256) for name in norms}
  raw, kinds = {}, {}
  for seed, (name, rows) in enumerate(MATRICES.items()):
    if kind in FLOATS:
      tensors[f"{name}.weight"] = 0.05 * np.random.default_rng(seed).normal(size=(rows, 256))
      kinds[f"{name}.weight"] = kind
    else:
      raw[f"{name}.weight"] = (kind, written.random_rows(kind, rows, 256, seed))
  fields = {f"llama.{key}": value for key, value in SIZES.items()} | written.byte_tokens(96)
  return written.write(file, "llama", fields, tensors, kinds, raw)


def test_the_kinds_are_those_of_ggml():
  for number, kind in KINDS.items():
    theirs = gguf.GGMLQuantizationType(number)
    assert theirs.name == kind.name and gguf.GGML_QUANT_SIZES[theirs] == (kind.numbers, kind.size)


@pytest.mark.parametrize("kind", QUANTISED)
def test_numbers_are_those_of_the_package(tmp_path, kind):
  """Ours for blocks of 32 to the last bit, and any rows of a tensor."""
  raw = written.random_rows(kind, 12, 512)
  file = written.write(
    tmp_path / "m.gguf", "qwen2", {}, {}, raw={"blk.0.ffn_up.weight": (kind, raw)}
  )
  expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
  assert np.isfinite(expected).all() and len(np.unique(expected)) > 20
  with checkpoints.gguf.GgufTensors(file) as stored:
    name = "model.layers.0.mlp.up_proj.weight"
    for start, stop in [(0, 12), (5, 6), (3, 11)]:
      rows = stored.rows(name, start, stop)
      assert rows.dtype == np.float32
      np.testing.assert_array_equal(rows, expected[start:stop])


@needs_torch
@pytest.mark.parametrize("kind", [*FLOATS, *QUANTISED])
def test_logits_are_those_of_transformers(tmp_path, kind):
  import transformers

  file = model_of(tmp_path / "model.gguf", kind)
  oracle = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path, gguf_file=file.name, dtype="float32", attn_implementation="eager"
  ).eval()
  rows = parity.prompts()
  expected = parity.oracle_logits(oracle, rows)
  assert max(np.abs(x).max() for x in expected) > 0.1
  logits = parity.logits(*checkpoints.load(file, dtype="float32"), rows)
  assert parity.difference(expected, logits) <= parity.TOLERANCE


@pytest.mark.parametrize(
  ("kind", "dtype"), [("F16", "float16"), ("BF16", "bfloat16"), ("Q4_1", "float32")]
)
def test_floats_keep_their_dtype_and_blocks_become_float32(tmp_path, kind, dtype):
  file = model_of(tmp_path / "model.gguf", kind)
  _, params = checkpoints.load(file)
  assert params["embedding"]["table"].dtype == dtype
  assert params["layer_0"]["attention_norm"]["weight"].dtype == "float32"
  _, params = checkpoints.load(file, dtype="bfloat16")
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("bfloat16")}


def test_only_blocks_of_256_need_the_package(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  blocks.check_package({"F32", "Q4_1", "Q8_0"}, "m.gguf")
  file = model_of(tmp_path / "model.gguf", "Q4_K")
  with pytest.raises(ImportError, match=r"model.gguf has .* Q4_K.*`pip install 'mtjax\[gguf\]'`"):
    checkpoints.load(file)
