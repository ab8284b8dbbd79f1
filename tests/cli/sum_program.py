"""A program as sweeps run them, which is fast: it writes the sum of its flags x and seed.

With --scratch it notes there that it runs, and waits while the file hold-X is there. It waits no
longer than a minute: a test that fails leaves no process.
"""

import json
import sys
import time
from pathlib import Path

from absl import flags

VALUES = flags.FlagValues()

flags.DEFINE_integer("x", 0, "A number; 13 fails.", flag_values=VALUES)
flags.DEFINE_integer("seed", 0, "Added to it.", flag_values=VALUES)
flags.DEFINE_multi_string("word", [], "Any text.", flag_values=VALUES)
flags.DEFINE_string("scratch", None, "Folder.", flag_values=VALUES)
flags.DEFINE_string("output", None, "JSON file.", flag_values=VALUES)


def main(x: int, seed: int, word: list[str], scratch: str | None, output: str) -> None:
  if scratch is not None:
    with (Path(scratch) / "ran").open("a") as file:
      file.write(f"{x}\n")
    deadline = time.monotonic() + 60
    while (Path(scratch) / f"hold-{x}").exists() and time.monotonic() < deadline:
      time.sleep(0.02)
  if x == 13:
    sys.exit("thirteen is no number")
  Path(output).write_text(json.dumps(dict(counters=dict(sum=x + seed, words=len(word)))))


if __name__ == "__main__":
  VALUES(sys.argv)
  main(**{name: VALUES[name].value for name in ("x", "seed", "word", "scratch", "output")})
