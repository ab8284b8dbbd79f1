"""Programs of this folder that need several devices, each run in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def printed_by(program: str, *arguments: str) -> dict[str, float]:
  """Returns the JSON that a file of this folder prints; what it wrote to stderr is in the error."""
  run = subprocess.run(
    [sys.executable, str(Path(__file__).parent / program), *arguments],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert run.returncode == 0, run.stderr[-3000:]
  return json.loads(run.stdout)
