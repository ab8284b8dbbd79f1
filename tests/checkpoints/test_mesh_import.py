"""Import onto a mesh, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path


def test_each_device_gets_its_part(folder):
  script = Path(__file__).parent / "four_devices_import.py"
  run = subprocess.run(
    [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 0, run.stderr[-3000:]
  facts = json.loads(run.stdout)
  assert facts["same"], "the values differ from those of an import on one device"
  assert facts["placed"], "a parameter lies elsewhere than mtjax.sharding says"
  assert facts["part"] == [facts["whole"][0], facts["whole"][1] // 2]
