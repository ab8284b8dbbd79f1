"""Files that cannot be read end with one clear line before any tensor is read."""

import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.checkpoints.gguf import GgufTensors, read_settings
from mtjax.data.tokenizers import load_tokenizer
from tests.checkpoints.gguf import written
from tests.checkpoints.gguf.test_quantisations import SIZES, model_of

ROWS = {
  "token_embd": (96, 64),
  "output_norm": (64,),
  "blk.0.attn_norm": (64,),
  "blk.0.ffn_norm": (64,),
  "blk.0.attn_q": (64, 64),
  "blk.0.attn_k": (32, 64),
  "blk.0.attn_v": (32, 64),
  "blk.0.attn_output": (64, 64),
  "blk.0.ffn_gate": (32, 64),
  "blk.0.ffn_up": (32, 64),
  "blk.0.ffn_down": (64, 32),
}
FIELDS = SIZES | {"embedding_length": 64, "feed_forward_length": 32}


def small(file, arch="llama", fields=None, without=(), more=None, keys=None):
  """Writes a Llama of one layer in Q4_1 with some settings, tensors or keys changed."""
  tensors = {
    f"{name}.weight": np.ones(shape) for name, shape in ROWS.items() if name not in without
  }
  tensors |= {name: np.ones(shape) for name, shape in (more or {}).items()}
  kinds = {name: "Q4_1" for name, value in tensors.items() if value.ndim > 1}
  settings = {f"{arch}.{key}": value for key, value in (FIELDS | (fields or {})).items()}
  settings = {key: value for key, value in settings.items() if value is not None}
  return written.write(
    file, arch, settings | written.byte_tokens(96) | (keys or {}), tensors, kinds
  )


@pytest.fixture
def no_reading(monkeypatch):
  monkeypatch.setattr(
    GgufTensors, "_stored", lambda *_: pytest.fail("a tensor was read before the refusal")
  )


@pytest.fixture
def refused(tmp_path, no_reading):
  """Returns a function: loads the file, which must fail with a message, and reads no tensor."""

  def check(match, error=ValueError, **changes):
    file = small(tmp_path / "m.gguf", **changes)
    with pytest.raises(error, match=match) as caught:
      checkpoints.load(file)
    assert "\n" not in str(caught.value) and "m.gguf" in str(caught.value)

  return check


def test_settings_and_tensors(refused):
  refused("general.architecture of .* 'bloom'.* known: llama, qwen2, qwen3", arch="bloom")
  refused("has llama.expert_count, a mixture of experts", fields={"expert_count": 8})
  refused("has llama.logit_scale, a setting that", fields={"logit_scale": 0.5})
  refused("lacks llama.embedding_length, which must be a whole", fields={"embedding_length": None})
  refused("llama.block_count of .* a whole number, got '1'", fields={"block_count": "1"})
  refused("max_position_embeddings of metadata must be", fields={"context_length": 0})
  refused("has heads of 0 numbers", fields={"attention.head_count": 5000})
  refused("rope.dimension_count of .* is 8; .* 16", fields={"rope.dimension_count": 8})
  refused("scaling.type of .* 'longrope'; known", fields={"rope.scaling.type": "longrope"})
  refused("no causal model", fields={"attention.causal": False})
  refused("metadata has 40 layers, but .* only 11 tensors", fields={"block_count": 40})
  refused("missing: model.layers.0.mlp.up_proj.weight", without=["blk.0.ffn_up"])
  refused("unexpected: blk.0.ffn_gate_exps", more={"blk.0.ffn_gate_exps.weight": (2, 32)})
  refused(
    "misshaped: .* is \\[32, 64\\] and must be \\[48, 64\\]", fields={"feed_forward_length": 48}
  )
  refused("one of 3 parts of a model.*llama-gguf-split --merge", keys={"split.count": 3})
  refused("is no model: its general.type is 'adapter'", keys={"general.type": "adapter"})


def test_a_switched_off_setting_changes_nothing(tmp_path):
  file = small(tmp_path / "m.gguf", fields={"expert_count": 0, "attention.causal": True})
  assert checkpoints.load(file)[0].config.dim == 64


def with_bytes(file, at, new):
  content = bytearray(file.read_bytes())
  content[at : at + len(new)] = new
  file.write_bytes(content)
  return file


def u32(number, order="little"):
  return number.to_bytes(4, order)


@pytest.mark.parametrize(
  ("at", "new", "match"),
  [
    (0, b"GGML", "is no GGUF file: it does not begin with GGUF"),
    (4, u32(1), "has version 1 of GGUF; known: 2, 3"),
    (4, u32(9), "has version 9 of GGUF"),
    (4, u32(3, "big"), "has big-endian numbers"),
    (8, b"\xff" * 8, "announces 18446744073709551615 values"),
    (16, b"\xff" * 8, "announces 18446744073709551615 values"),
    (24, b"\xff" * 8, "its header goes on to byte 18446744073709551647"),
  ],
)
def test_beginnings(tmp_path, at, new, match):
  file = with_bytes(small(tmp_path / "m.gguf"), at, new)
  with pytest.raises(ValueError, match=match):
    checkpoints.load(file)


def test_unknown_quantisations_are_named_with_the_known_ones(tmp_path):
  file = small(tmp_path / "m.gguf")
  name = b"blk.0.ffn_up.weight"
  at = file.read_bytes().index(name) + len(name) + 4 + 2 * 8
  for number, match in ((23, "is IQ4_XS, which cannot"), (99, r"of an unknown type \(number 99\)")):
    with_bytes(file, at, u32(number))
    with pytest.raises(ValueError, match=f"ffn_up.weight' of .* {match}.*known: F32, F16, .* Q6_K"):
      checkpoints.load(file)


def load(file):
  """Loads a model and its tokenizer; returns the refusal, or None."""
  refusals = []
  for read in (checkpoints.load, load_tokenizer):
    try:
      read(file)
    except ValueError as error:
      assert str(file) in str(error)
      refusals.append(str(error))
  return refusals


def test_files_that_were_cut_are_refused(tmp_path, no_reading):
  content = small(tmp_path / "m.gguf").read_bytes()
  with GgufTensors(tmp_path / "m.gguf") as stored:
    begin = min(tensor.offset for tensor in stored.tensors.values())
    last = max(stored.tensors.values(), key=lambda tensor: tensor.offset)
    end = last.offset + 64 * 4 if last.dtype == "F32" else last.offset + 64 * 32 // 32 * 20
  file = tmp_path / "cut.gguf"
  for size in [*range(0, begin, 97), *range(begin, end, 1001), end - 1]:
    file.write_bytes(content[:size])
    with pytest.raises(ValueError, match="cut.gguf"):
      checkpoints.load(file)
  file.write_bytes(content[:end])
  with GgufTensors(file) as stored:  # what follows the last tensor may be missing
    assert len(stored.tensors) == len(ROWS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  file = model_of(tmp_path_factory.mktemp("whole") / "whole.gguf", "Q8_0")
  with GgufTensors(file) as stored:
    begin = min(tensor.offset for tensor in stored.tensors.values())
  return file.read_bytes(), begin


@hypothesis.settings(max_examples=150)
@hypothesis.given(data=st.data())
def test_damaged_headers_are_refused_or_read_without_a_large_array(whole, tmp_path_factory, data):
  content, begin = whole
  damaged = bytearray(content)
  for _ in range(data.draw(st.integers(1, 3))):
    at = data.draw(st.integers(0, begin - 8))
    value = data.draw(st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\xff", b"\0", b"\x7f", b"\x01\0"]))
    damaged[at : at + len(value)] = value
  file = tmp_path_factory.mktemp("damaged") / "damaged.gguf"
  file.write_bytes(damaged)
  tracemalloc.start()
  try:
    with GgufTensors(file) as stored:
      read_settings(stored)
  except ValueError as error:
    assert "damaged.gguf" in str(error)
  try:
    load_tokenizer(file)
  except ValueError as error:
    assert "damaged.gguf" in str(error)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 20 << 20


@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_changed_settings_are_refused_or_read(whole, tmp_path_factory, data):
  """Numbers of one layer's sizes, changed one or two at a time, as whole models."""
  file = tmp_path_factory.mktemp("changed") / "changed.gguf"
  names = st.sampled_from(sorted(set(FIELDS) - {"attention.layer_norm_rms_epsilon"}))
  numbers = st.sampled_from([0, 1, 2, 3, 7, 64, 255, 2**31, 2**32 - 1])
  fields = data.draw(st.dictionaries(names, numbers, min_size=1, max_size=2))
  small(file, fields=fields)
  load(file)
