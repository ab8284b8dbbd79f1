"""Runs the sweep of docs/guides/sweep.md and copies its plot: python -m docs.make.sweep

Six training runs of a tiny model, one after the other: about 2 minutes on one CPU core.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "sweep.png"
CONFIG = "configs/sweep/tiny_learning_rates.py"


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    results = Path(folder) / "results"
    command = (f"--config={CONFIG}", "--seeds=3", f"--results={results}")
    metrics = "--metrics=bits_per_byte/valid,loss"
    subprocess.run(
      [sys.executable, "-m", "experiments.sweep", *command, metrics], cwd=ROOT, check=True
    )
    shutil.copyfile(results / "plot.png", PICTURE)


if __name__ == "__main__":
  main()
