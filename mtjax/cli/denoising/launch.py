"""The part of mtjax-decode that denoises: prompts become texts, shown and kept as they fill in."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console
from rich.live import Live

from mtjax import hosts
from mtjax.cli.denoising.rows import row_settings
from mtjax.cli.hosts.once import writes_here
from mtjax.cli.likelihood.quality import TextJudge, quality_line
from mtjax.cli.prompts import PromptRow
from mtjax.cli.running import results_file
from mtjax.diffusion.texts import prompt_ids
from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.registry.constraints import make_constraint
from mtjax.registry.denoising.methods import AnyDenoiser
from mtjax.report.canvas.gif import check_gif, save_gif
from mtjax.report.canvas.page import canvas_page_of_record
from mtjax.report.canvas.record import CanvasRun, canvas_record
from mtjax.report.canvas.terminal import colored_canvases, plain_canvases
from mtjax.report.terminal import counters_table
from mtjax.text import TextModel


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What is to be shown and written of a run."""

  stream: bool | None = None  # None: on a terminal
  history: bool = False
  output: str | None = None
  html: str | None = None
  gif: str | None = None

  def check(self) -> None:
    """Raises ValueError or ModuleNotFoundError for a picture that cannot be written."""
    if self.gif is not None:
      check_gif(self.gif)

  @property
  def frames(self) -> bool:
    """True if the canvases are wanted after each pass, whether they are streamed or not."""
    return self.history or self.html is not None or self.gif is not None


def denoise(
  config: ConfigDict,
  method: AnyDenoiser,
  text: TextModel,
  inputs: list,
  wanted: Wanted,
  *,
  rows: Sequence[PromptRow],
  judge: TextJudge | None = None,
) -> None:
  """Denoises a canvas after each input; prints, shows and writes what is wanted.

  `rows`: the lines that the inputs come from, with settings of their own (`row_settings`). If there
  is a `judge`, its figures are printed and written, too.

  Whatever ends the run, the page has the passes that were finished.
  """
  console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
  method.check(text)
  prompts = prompt_ids(text, inputs)
  settings = config.to_dict()
  constraint = make_constraint(settings, text.tokenizer)
  exactness, reason = method.label(constraint is not None)
  # Every process makes the passes that process 0 shows, and only this one may have a terminal.
  streams = hosts.of_first(console.is_terminal if wanted.stream is None else wanted.stream)
  frames: list[CanvasFrame] = []
  optional: dict[str, Any] = {} if constraint is None else dict(constraint=constraint)

  def run_of() -> CanvasRun:
    return CanvasRun(prompts, frames)

  def record_of(run: CanvasRun) -> dict[str, Any]:
    return dict(settings=settings, **canvas_record(run, text.tokenizer))

  with (
    results_file(wanted.output) as write,
    results_file(wanted.html, dump=lambda record: canvas_page_of_record(record).text) as write_page,
  ):
    with _kept(frames, lambda: write_page(record_of(run_of()))):
      with _shown(console, errors, text, inputs, streams=streams) as show:

        def on_pass(frame: CanvasFrame) -> None:
          frames.append(frame)
          show(frame)

        completions, run = text.denoise(
          inputs,
          method=method,
          **row_settings(settings, rows),
          **optional,
          on_pass=on_pass if streams or wanted.frames else None,
        )
    if not (streams and console.is_terminal):
      print(_text(completions))
    errors.print(f" {exactness.value}{f': {reason}' if reason else ''}", style="dim")
    errors.print(counters_table(run.counters))
    record: dict[str, Any] = dict(
      settings=settings,
      rows=[
        vars(completion) | (dict(settings=row.settings) if row.settings else {})
        for completion, row in zip(completions, rows, strict=True)
      ],
      decided_at=run.decided_at,
      passes=run.passes.tolist(),
      exactness=exactness.value,
      reason=reason,
      counters=run.counters,
    )
    if judge is not None:
      record["quality"] = judge.figures(completions)
      errors.print(quality_line(record["quality"]), style="dim")
    canvases = run_of() if wanted.frames else None
    if canvases is not None:
      record |= record_of(canvases)
    write(record)
    if canvases is not None and wanted.html is not None:
      write_page(record)
    if canvases is not None and wanted.gif is not None and writes_here():
      save_gif(wanted.gif, canvases, text.tokenizer)


@contextlib.contextmanager
def _kept(frames: list[CanvasFrame], write: Callable[[], None]) -> Generator[None]:
  """Calls `write` if the block is stopped after a pass."""
  try:
    yield
  except BaseException:
    if frames:
      write()
    raise


@contextlib.contextmanager
def _shown(
  console: Console, errors: Console, text: TextModel, inputs: list, *, streams: bool
) -> Generator[Callable[[CanvasFrame], None]]:
  """Yields what shows a canvas: in place on a terminal, and as lines of stderr elsewhere."""
  if not streams:
    yield lambda frame: None
  elif console.is_terminal:
    with Live(console=console, auto_refresh=False) as live:
      yield lambda frame: live.update(colored_canvases(frame, text.tokenizer), refresh=True)
  else:

    def line(frame: CanvasFrame) -> None:
      errors.print(f"pass {frame.number}: {plain_canvases(frame, text.tokenizer)}", markup=False)

    yield line


def _text(completions) -> str:
  if len(completions) == 1:
    return completions[0].text
  return "\n\n".join(f"[{row}] {c.prompt}\n{c.text}" for row, c in enumerate(completions))
