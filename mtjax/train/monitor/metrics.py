"""The files of a run's numbers: metrics.jsonl, and TensorBoard if the config says so."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol, runtime_checkable


@runtime_checkable
class Sink(Protocol):
  """A place where metrics are written. Steps come in ascending order."""

  def write(self, step: int, values: Mapping[str, float]) -> None: ...

  def close(self) -> None: ...


class JsonLines:
  """A file with one JSON object per line and one line per step.

  On opening, lines past `step` are dropped, and so is a line that a crash cut short. Lines reach
  the operating system at once: if a checkpoint exists, so do all lines that were written before.
  """

  def __init__(self, path: Path, *, step: int):
    self._file: IO[str] = _truncated(path, step).open("a", encoding="utf-8")

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self._file.write(json.dumps(dict(step=step, **values)) + "\n")
    self._file.flush()

  def close(self) -> None:
    self._file.close()


class TensorBoard:
  """Event files under `folder`, of which a viewer drops the steps past the restored one.

  Raises ImportError that names the extra to install if tensorboardX is missing.
  """

  def __init__(self, folder: Path, *, step: int):
    try:
      from tensorboardX import SummaryWriter
    except ImportError as error:
      raise ImportError("TensorBoard logs need tensorboardX: `pip install mtjax[tb]`") from error
    self._writer = SummaryWriter(str(folder), purge_step=step + 1)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    self._writer.close()


class Speed:
  """Tokens per second and the time that is left, over the steps since the start of the process.

  The first step compiles, so the clock starts after it.
  """

  def __init__(self, *, steps: int):
    self._steps = steps
    self._start: tuple[int, float] | None = None
    self._tokens = 0

  def update(self, step: int, tokens: int) -> dict[str, float]:
    """Returns the speed so far. Call it after a finished step, with the tokens since the last call.

    The first call starts the clock and returns {}.
    """
    now = time.monotonic()
    if self._start is None:
      self._start = step, now
      return {}
    self._tokens += tokens
    first, begun = self._start
    passed = max(now - begun, 1e-9)
    left = (self._steps - step) * passed / max(step - first, 1)
    return dict(tokens_per_second=round(self._tokens / passed, 1), eta_seconds=round(left, 1))


def _truncated(path: Path, step: int) -> Path:
  if not path.exists():
    return path
  kept = []
  for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
    try:
      if line and json.loads(line)["step"] <= step:
        kept.append(line + "\n")
    except (json.JSONDecodeError, KeyError, TypeError):
      continue
  new = path.with_suffix(".new")
  new.write_text("".join(kept), encoding="utf-8")
  os.replace(new, path)
  return path
