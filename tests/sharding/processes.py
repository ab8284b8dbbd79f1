"""Programs of this folder that need several devices, each run in a process of its own."""

import json
from pathlib import Path

from tests.forked import launch
from tests.source import ROOT


def printed_by(program: str, *arguments: str) -> dict[str, float]:
  """Returns the JSON that a file of this folder prints; what it wrote to stderr is in the error."""
  path = (Path(__file__).parent / program).resolve().relative_to(ROOT)
  code, shown, errors = launch(".".join(path.with_suffix("").parts), *arguments)
  assert code == 0, errors[-3000:]
  return json.loads(shown)
