"""Chromium without a screen: what it makes of a page, as a picture or as a document.

Pages are read from files and nothing is loaded from a network.
"""

import re
import shutil
import subprocess
from pathlib import Path

INSTALL = "apt-get install chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_DARK, _LIGHT = 0, 1  # Blink's preferred colour schemes


def browser() -> str | None:
  """Returns the path of a Chromium on this machine; None: there is none."""
  return next((path for name in _NAMES if (path := shutil.which(name))), None)


def screenshot(
  address: str, picture: str | Path, *, width: int, height: int, dark: bool = False
) -> None:
  """Draws the page of an address, such as file:///tmp/run.html#t0-3, in a window of that size."""
  scheme = _DARK if dark else _LIGHT
  _run(
    f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={scheme}",
    f"--screenshot={Path(picture).resolve()}", address,
  )  # fmt: skip


def document_after(address: str, *, milliseconds: int = 3000) -> tuple[str, list[str]]:
  """Returns the page's document after its scripts ran, and what stood on its console."""
  run = _run(f"--virtual-time-budget={milliseconds}", "--dump-dom", address)
  return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]


def acted_on(page: str, script: str) -> str:
  """Returns a page of mtjax.report on which `script` acts after the page's own script.

  The page's policy would refuse it, so this page has none.
  """
  free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page, count=1)
  return free.replace("</body>", f"<script>{script}</script></body>")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
  path = browser()
  if path is None:
    raise FileNotFoundError(f"there is no Chromium on this machine: {INSTALL}")
  # Without the sandbox, because it needs rights that containers withhold.
  command = (path, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
  return subprocess.run(
    [*command, "--enable-logging=stderr", *arguments],
    check=True,
    capture_output=True,
    text=True,
    timeout=120,
  )
