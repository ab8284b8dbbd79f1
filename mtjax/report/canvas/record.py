"""A run of denoising as what each pass changed: the JSON that pictures and pages are made from."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.data.tokenizers import Tokenizer
from mtjax.diffusion.texts import prompt_ids
from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.report.history.run_json import token_fields
from mtjax.text import Prompt, TextModel


@dataclasses.dataclass(frozen=True)
class CanvasRun:
  """The canvases of a batch after each pass, the first before all, and the prompts before them."""

  prompts: Sequence[Sequence[int]]
  frames: Sequence[CanvasFrame]

  def __post_init__(self):
    if not self.frames:
      raise ValueError("the run has no canvas: denoise with on_pass=frames.append")

  @property
  def rows(self) -> int:
    return len(self.prompts)


@dataclasses.dataclass(frozen=True)
class CanvasChange:
  """What one pass wrote at one place of a row's canvas; token None: it is masked again."""

  number: int  # of the pass, from 1
  place: int
  token: int | None


def canvas_run(
  text: TextModel, prompts: Sequence[Prompt], frames: Sequence[CanvasFrame]
) -> CanvasRun:
  """Returns the run of what `TextModel.denoise(prompts, on_pass=frames.append)` has shown."""
  return CanvasRun(prompt_ids(text, prompts), frames)


def changes_of(run: CanvasRun, row: int) -> list[CanvasChange]:
  """Returns what the passes changed in a row, first to last.

  A place that a pass decided anew is a change although the token may be the same.
  """
  changes = []
  for before, after in zip(run.frames, run.frames[1:], strict=False):
    for place, (token, at) in enumerate(zip(after.tokens[row], after.decided_at[row], strict=True)):
      if token != before.tokens[row][place] or at != before.decided_at[row][place]:
        changes.append(CanvasChange(after.number, place, token))
  return changes


def canvas_record(run: CanvasRun, tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the field "canvases" of a run's JSON, and what its tokens look like.

  For each row "length", the number of its places, and "changes": lists of pass, place and token,
  null for a mask.
  """
  changes = [changes_of(run, row) for row in range(run.rows)]
  seen = [[one.token for one in each if one.token is not None] for each in changes]
  return dict(
    prompts=[list(prompt) for prompt in run.prompts],
    num_passes=run.frames[-1].number,
    canvases=[
      dict(
        length=len(run.frames[0].tokens[row]),
        changes=[[one.number, one.place, one.token] for one in each],
      )
      for row, each in enumerate(changes)
    ],
    **token_fields([], tokenizer, [*run.prompts, *seen]),
  )


def read_changes(canvas: Mapping[str, Any]) -> list[CanvasChange]:
  """Returns the changes of one row of `canvas_record`. Raises ValueError for anything else."""
  try:
    return [CanvasChange(number, place, token) for number, place, token in canvas["changes"]]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"this is no canvas of a run that denoised: {error!r}") from None
