"""Runs the sweeps of docs/guides/sweep.md and copies their plots: python -m docs.make.sweep

Six training runs of a tiny model, and 32 runs of denoising, one after the other: about 8 minutes on
one CPU core.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
# Picture -> config and further flags.
SWEEPS = {
  "sweep.png": (
    "configs/sweep/tiny_learning_rates.py",
    "--seeds=3",
    "--metrics=bits_per_byte/valid,loss",
  ),
  "sweep_denoise.png": ("configs/sweep/denoise.py",),
}


def main() -> None:
  for picture, (config, *flags) in SWEEPS.items():
    with tempfile.TemporaryDirectory() as folder:
      results = Path(folder) / "results"
      command = (f"--config={config}", f"--results={results}", *flags)
      subprocess.run([sys.executable, "-m", "experiments.sweep", *command], cwd=ROOT, check=True)
      shutil.copyfile(results / "plot.png", PICTURES / picture)


if __name__ == "__main__":
  main()
