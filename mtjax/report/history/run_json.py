"""A history in the JSON of a run, with the text of its tokens: what pictures are drawn from."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.rounds.history import PassRecord, RoundRecord, TreeRecord, from_json, to_json


@dataclasses.dataclass(frozen=True)
class RecordedRun:
  """A history, and what its tokens look like."""

  history: list[RoundRecord]
  pieces: Mapping[int, str]
  title: str

  @property
  def rows(self) -> int:
    return len(self.history[0].rows) if self.history else 0

  def piece(self, token: int) -> str:
    """Returns the token's text on one line, with a dot for each space, or its number."""
    shown = self.pieces.get(token, "")
    for character, sign in ((" ", "·"), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
      shown = shown.replace(character, sign)
    return shown if shown.isprintable() and shown else f"<{token}>"


def recorded_run(
  history: Sequence[RoundRecord] | None, tokenizer: Tokenizer, title: str = "run"
) -> RecordedRun:
  """Returns a run of this process for pictures, as `read_run` does for a file.

  Raises ValueError for a run without a history.
  """
  if not history:
    raise ValueError("the run has no history: generate with history=True")
  pieces = token_pieces([history], tokenizer)
  return RecordedRun(list(history), {int(token): text for token, text in pieces.items()}, title)


def history_record(history: Sequence[RoundRecord], tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the fields "history" and "pieces" of a run's JSON."""
  return dict(history=to_json(history), pieces=token_pieces([history], tokenizer))


def token_pieces(
  histories: Sequence[Sequence[RoundRecord]], tokenizer: Tokenizer
) -> dict[str, str]:
  """Returns the text of every token that stands in the histories, by its number as a string."""
  ids = sorted({token for history in histories for token in _tokens(history)})
  pieces = pieces_of(tokenizer, ids)
  return {
    str(token): piece.decode("utf-8", "replace") for token, piece in zip(ids, pieces, strict=True)
  }


def read_run(path: str | Path, *, method: str | None = None, prompt: int = 0) -> RecordedRun:
  """Returns the history in a file that mtjax-decode or mtjax-infill wrote with --history.

  `method` and `prompt` choose one run of several that were compared. Raises ValueError that names
  the file for one without a history, and for a run that is not in it.
  """
  try:
    found = json.loads(Path(path).read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is no JSON: {error}") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path} is no run: it holds no JSON object")
  one, title = found, str(found.get("settings", {}).get("method", "fill"))
  if "compared" in found:
    one, title = _compared(path, found["compared"], method, prompt), str(method)
  elif method is not None or prompt:
    raise ValueError(f"{path} holds one run: no method or prompt can be chosen")
  if not one.get("history"):
    raise ValueError(f"{path} holds no history: run it again with --history")
  pieces = {int(token): text for token, text in found.get("pieces", {}).items()}
  try:
    return RecordedRun(from_json(one["history"]), pieces, title)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def _compared(path, compared, method, prompt) -> dict[str, Any]:
  runs = {one["name"]: one["runs"] for one in compared}
  if method not in runs:
    raise ValueError(f"{path} compares {', '.join(runs)}: choose one of them, not {method}")
  if not 0 <= prompt < len(runs[method]):
    raise ValueError(f"{path} holds {len(runs[method])} prompts, counted from 0: got {prompt}")
  return runs[method][prompt]


def _tokens(history: Sequence[RoundRecord]):
  for record in history:
    for row in record.rows:
      if isinstance(row, TreeRecord):
        yield from row.tokens
        yield from row.emitted
      for one in row if isinstance(row, tuple) else ():
        if isinstance(one, PassRecord):
          yield from one.tokens
