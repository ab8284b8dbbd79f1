"""Reading a quantised file needs memory for the parameters, not for the file or a tensor of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints.gguf import written

ROOT = Path(__file__).resolve().parents[3]
MB = 1 << 20

pytestmark = pytest.mark.skipif(
  not Path("/proc/self/status").exists(), reason="memory is read from /proc: run this on Linux"
)


def test_quantised_tensors_are_read_in_chunks(tmp_path):
  dim, vocab = 512, 40_000
  fields = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": dim,
    "feed_forward_length": dim,
    "attention.head_count": 8,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "vocab_size": vocab,
  }
  rows = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), dim)
  rows |= dict.fromkeys(("ffn_gate", "ffn_up", "ffn_down"), dim)
  kinds = {f"blk.0.{name}.weight": ("Q4_1", count) for name, count in rows.items()}
  kinds["token_embd.weight"] = ("Q8_0", vocab)
  raw = {name: (kind, written.random_rows(kind, n, dim)) for name, (kind, n) in kinds.items()}
  norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
  file = written.write(
    tmp_path / "m.gguf",
    "llama",
    {f"llama.{key}": value for key, value in fields.items()} | written.byte_tokens(96),
    {f"{name}.weight": np.ones(dim) for name in norms},
    raw=raw,
  )
  run = subprocess.run(
    [sys.executable, str(ROOT / "tests" / "checkpoints" / "load_memory.py"), str(file)],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  result = json.loads(run.stdout)
  assert result["size"] > 80 * MB
  # As for safetensors, most of what is more is code; the embedding would be 78 MB once more.
  assert result["peak"] - result["before"] < result["size"] + 45 * MB, result
