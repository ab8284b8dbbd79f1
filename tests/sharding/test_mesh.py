"""Four devices compute what one computes, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = (
  *(f"logits {f} {kind}" for f in ("gated", "untied", "gpt2") for kind in ("float", "int8")),
  "attention over heads",
  "gradient of attention in blocks",
  "arrays gathered for attention in blocks",
  "drafts of a store on the host",
  "gpt2 imported",
  "llama imported",
  "training continued on a mesh",
)


@pytest.fixture(scope="module")
def differences():
  run = subprocess.run(
    [sys.executable, str(Path(__file__).parent / "four_devices.py")],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  return json.loads(run.stdout)


@pytest.mark.parametrize("case", CASES)
def test_two_by_two_equals_one_device(differences, case):
  assert differences[case] < 2e-5, f"{case}: differs by {differences[case]} on a 2 x 2 mesh"
