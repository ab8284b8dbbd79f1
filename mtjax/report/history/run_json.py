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
  """A history, what its tokens look like, and what is known of the run."""

  history: list[RoundRecord]
  pieces: Mapping[int, str]
  title: str
  special: frozenset[int] = frozenset()  # special tokens, whose pieces are their names
  # Bytes of tokens that are no text by themselves: parts of a character, mostly.
  parts: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
  prompts: Sequence[Sequence[int]] = ()  # tokens of each row's prompt, where they were recorded
  canvas: Sequence[int] = ()  # of a fill: the tokens of the text, those that were filled in too
  is_target: Sequence[bool] = ()  # of a fill: which of them are to be filled in

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
  pieces = token_fields([history], tokenizer)["pieces"]
  return RecordedRun(list(history), {int(token): text for token, text in pieces.items()}, title)


def history_record(
  history: Sequence[RoundRecord], tokenizer: Tokenizer, texts: Sequence[Sequence[int]] = ()
) -> dict[str, Any]:
  """Returns the field "history" of a run's JSON, and those of `token_fields`."""
  return dict(history=to_json(history), **token_fields([history], tokenizer, texts))


def token_fields(
  histories: Sequence[Sequence[RoundRecord]],
  tokenizer: Tokenizer,
  texts: Sequence[Sequence[int]] = (),
) -> dict[str, Any]:
  """Returns what tokens look like that stand in the histories, or in the texts around them.

  "pieces" has the text of each token by its number as a string, and the name of a special one;
  "special" the numbers of those; "parts" the bytes, in hexadecimal digits, of tokens that are no
  text by themselves.
  """
  seen = {token for history in histories for token in _tokens(history)}
  ids = sorted(seen.union(*texts))
  names = {token: name for name, token in tokenizer.special_tokens().items()}
  pieces, special, parts = {}, [], {}
  for token, piece in zip(ids, pieces_of(tokenizer, ids), strict=True):
    text = piece.decode("utf-8", "replace")
    if not piece and token in names:
      text = names[token]
      special.append(token)
    elif text.encode() != piece:
      parts[str(token)] = piece.hex()
    pieces[str(token)] = text
  return dict(pieces=pieces, special=special, parts=parts)


def prompt_tokens(tokenizer: Tokenizer, prompts: Sequence[str | Sequence[int]]) -> list[list[int]]:
  """Returns the tokens of prompts, some of which may be tokens already."""
  return [list(map(int, tokenizer.encode(one) if isinstance(one, str) else one)) for one in prompts]


def read_run(path: str | Path, *, method: str | None = None, prompt: int = 0) -> RecordedRun:
  """Returns the history in a file that mtjax-decode or mtjax-infill wrote with --history.

  `method` and `prompt` choose one run of several that were compared. Raises ValueError that names
  the file for one without a history, and for a run that is not in it.
  """
  found = read_record(path)
  one, title = found, _title(found)
  if "compared" in found:
    one, title = _compared(path, found["compared"], method, prompt), str(method)
  elif method is not None or prompt:
    raise ValueError(f"{path} holds one run: no method or prompt can be chosen")
  check_history(path, one)
  try:
    return _run(found, one, title, prompt)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def read_record(path: str | Path) -> dict[str, Any]:
  """Returns the JSON of a run. Raises ValueError that names the file for anything else."""
  try:
    found = json.loads(Path(path).read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is no JSON: {error}") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path} is no run: it holds no JSON object")
  return found


def runs_of(record: Mapping[str, Any]) -> list[RecordedRun]:
  """Returns all runs of a record: one, or those of every method that was compared, in order.

  Raises ValueError for a history that is none.
  """
  if "compared" not in record:
    return [_run(record, record, _title(record), 0)]
  return [
    _run(record, run, one["name"], prompt)
    for one in record["compared"]
    for prompt, run in enumerate(one["runs"])
  ]


def _title(record: Mapping[str, Any]) -> str:
  return str(record.get("settings", {}).get("method", "fill"))


def check_history(path: str | Path, one: Mapping[str, Any]) -> None:
  """Raises ValueError that names the file for a run that was recorded without a history."""
  if "canvases" in one:
    raise ValueError(f"{path} holds canvases that were denoised, without trees: --page shows them")
  if not one.get("history"):
    raise ValueError(f"{path} holds no history: run it again with --history")


def _run(record: Mapping[str, Any], one: Mapping[str, Any], title: str, prompt: int) -> RecordedRun:
  prompts = record.get("prompts", ())
  return RecordedRun(
    history=from_json(one["history"]),
    pieces={int(token): text for token, text in record.get("pieces", {}).items()},
    title=title,
    special=frozenset(record.get("special", ())),
    parts={int(token): bytes.fromhex(part) for token, part in record.get("parts", {}).items()},
    prompts=prompts[prompt : prompt + 1] if "compared" in record else prompts,
    canvas=record["tokens"] if "is_target" in record else (),
    is_target=record.get("is_target", ()),
  )


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
