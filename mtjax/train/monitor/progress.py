"""The display of a run's progress: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Bar:
  """A progress bar on standard error, redrawn at every step whose metrics are read."""

  def __init__(self, *, steps: int, step: int):
    self._progress = Progress(
      TextColumn("step {task.completed}/{task.total}"),
      BarColumn(),
      TextColumn("{task.fields[text]}"),
      console=Console(stderr=True),
    )
    self._task = self._progress.add_task("", total=steps, completed=step, text="compiling")
    self._progress.start()

  def write(self, step: int, values: Mapping[str, float]) -> None:
    self._progress.update(self._task, completed=step, text=describe(values))

  def close(self) -> None:
    self._progress.stop()


class Lines:
  """One line per logged step on standard error, for log files."""

  def __init__(self, *, steps: int, step: int):
    self._steps = steps

  def write(self, step: int, values: Mapping[str, float]) -> None:
    print(f"step {step}/{self._steps}  {describe(values)}", file=sys.stderr, flush=True)

  def close(self) -> None:
    pass


def make_progress(*, steps: int, step: int) -> Bar | Lines:
  """Returns a bar if standard error is a terminal, and lines otherwise."""
  return (Bar if sys.stderr.isatty() else Lines)(steps=steps, step=step)


def describe(values: Mapping[str, float]) -> str:
  """Returns a line such as "loss 3.210  bits/byte prose 1.920  1,234 tokens/s  12 min 0 s left"."""
  parts = []
  if "loss" in values:
    parts.append(f"loss {values['loss']:.3f}")
  scores = {k.split("/")[1]: v for k, v in values.items() if k.startswith("bits_per_byte/")}
  if scores:
    parts.append("bits/byte " + " ".join(f"{k} {v:.3f}" for k, v in scores.items()))
  if "tokens_per_second" in values:
    parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
  if "eta_seconds" in values:
    parts.append(_duration(values["eta_seconds"]) + " left")
  return "  ".join(parts)


def _duration(seconds: float) -> str:
  minutes, rest = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours} h {minutes:02d} min"
  return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
