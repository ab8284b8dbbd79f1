"""Draws the picture of a page that --html writes: python -m docs.make.run_page

SmolLM2 rewrites code, with drafts of prompt lookup; Chromium opens the page, points at a token
and opens a round. It needs the extra smollm2 and Chromium, and a minute.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from docs.make.browser import acted_on, screenshot
from mtjax.evaluate.sets.demo import JOBS

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "run_page.png"
COMMAND = (
  "experiments.decode", "--config=lookup", "--config.model=smollm2", "--config.prompt_format=chat",
  "--config.drafter.branches=3", "--config.max_tokens=128",
)  # fmt: skip
# Of the rounds that accepted and refused drafts: the one that accepted most.
SCRIPT = """
const trees = data.texts[0].trees;
const mixed = trees.keys().filter((at) => trees[at].token.length - trees[at].path.length > 3);
const best = [...mixed].reduce((a, b) => (trees[b].path.length > trees[a].path.length ? b : a));
document.getElementById(`t0-${best}`).open = true;
document.querySelector(`[data-at="${best}.0"]`).focus({ preventScroll: true });
scrollTo(0, 0);
"""


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    page, acted = Path(folder) / "run.html", Path(folder) / "acted.html"
    command = [sys.executable, "-m", *COMMAND, f"--prompt={JOBS['rewrite code']}", f"--html={page}"]
    subprocess.run(command, cwd=ROOT, check=True)
    acted.write_text(acted_on(page.read_text(encoding="utf-8"), SCRIPT), encoding="utf-8")
    screenshot(acted.as_uri(), PICTURE, width=1100, height=1250)


if __name__ == "__main__":
  main()
