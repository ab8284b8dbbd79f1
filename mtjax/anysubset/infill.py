"""Infilling of text: `infill(model, "text ___ text", lengths=8)`."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtjax.anysubset import (
  Canvas,
  Filled,
  FillMethod,
  SelfDraft,
  fill,
  log_likelihood,
  make_canvas,
  stream,
)
from mtjax.anysubset.blanks import Blanked, Lengths, blanks_in
from mtjax.anysubset.canvas import num_sinks
from mtjax.constraints import TokenDfa
from mtjax.data.pieces import decode_continuation
from mtjax.display.short import clipped, counted
from mtjax.rounds.history import RoundRecord
from mtjax.sampling.logits import Sampling, Seeds
from mtjax.sharding import MeshLike
from mtjax.text import TextModel

MAX_CHOICES = 64  # combinations of candidate lengths that are tried, in one batch
_AFTER = 32  # number of tokens after a blank that its length is judged by


@dataclasses.dataclass(frozen=True)
class Infilling:
  """A text with its blanks filled, and how each token was decided."""

  text: str
  blanks: list[str]
  tokens: list[int]
  is_target: list[bool]
  decided_at: list[int]  # forward pass that decided a token, from 1; 0: context or still open
  drafted: list[bool]  # decided tokens that were accepted drafts
  lengths: tuple[int, ...]  # number of tokens per blank, as the caller gave it or as chosen
  counters: dict[str, Any]
  # What each pass decided, entries counted as `tokens` are; None: it was not asked for.
  history: list[RoundRecord] | None = None

  def __repr__(self) -> str:
    blanks, decided = counted(len(self.blanks), "blank"), counted(self.counters["filled"], "token")
    passes = counted(self.counters["forwards"], "pass", "passes")
    return f"Infilling({clipped(self.text)!r}, {blanks}, {decided} in {passes})"


def infill(
  model: TextModel,
  text: str,
  *,
  lengths: Lengths,
  method: FillMethod = SelfDraft(),
  sampling: Sampling | None = None,
  key: Seeds = 0,
  constraint: TokenDfa | Sequence[TokenDfa | None] | None = None,
  history: bool = False,
  mesh: MeshLike = None,
) -> Infilling:
  """Fills every ___ of the text with tokens from their joint distribution given all the rest.

  `lengths`: the number of tokens per blank, one for all or one each; or, in place of a number,
  candidates, as (4, (2, 3, 5)). All combinations are then filled, and the one is chosen whose mean
  log-likelihood per token is highest, over the blanks and up to 32 tokens after each, from left to
  right given the rest: what follows a blank of the wrong length is improbable. `method`,
  `sampling`, `key` and `history` are those of `mtjax.anysubset.fill`. `constraint`: what every
  blank must match (`mtjax.constraints`), or one per blank, None for any text. The space before a
  blank is part of it. Candidate lengths that no accepted text has are not tried. `mesh`: the
  devices to run on, as "data:2,model:2"; None: those of the model, if it was loaded with a mesh.

  Raises ValueError, before compilation, for a text without a blank, a mask token in the text,
  lengths that do not fit its blanks, more than 64 combinations, a text that with its blanks is
  longer than the model's positions, constraints that do not fit the blanks, and what `fill`
  refuses.
  """
  model = model.on_mesh(mesh)
  tried, constraints = _fitting(_tried(model, text, lengths), constraint)
  canvas = _canvas(model, tried)
  settings: dict[str, Any] = dict(
    method=method, sampling=sampling, key=key, history=history, constraint=constraints
  )
  filled = fill(model.model, model.params, canvas, mesh=model.mesh, **settings)
  best = int(np.argmax(_fit(model, tried, canvas, filled))) if len(tried) > 1 else 0
  return _infilling(model, tried[best], filled, best)


def stream_infill(
  model: TextModel,
  text: str,
  *,
  lengths: Lengths,
  method: FillMethod = SelfDraft(),
  sampling: Sampling | None = None,
  key: Seeds = 0,
  constraint: TokenDfa | Sequence[TokenDfa | None] | None = None,
  history: bool = False,
  mesh: MeshLike = None,
) -> Iterator[Infilling]:
  """Yields the text of `infill` after each round; open tokens have `decided_at` 0.

  Raises ValueError as `infill` does, and for several candidate lengths of a blank.
  """
  model = model.on_mesh(mesh)
  tried = _tried(model, text, lengths)
  if len(tried) > 1:
    raise ValueError("a length that is still to be chosen cannot be streamed: give one per blank")
  _, constraints = _fitting(tried, constraint)
  settings: dict[str, Any] = dict(
    method=method, sampling=sampling, key=key, history=history, constraint=constraints
  )
  canvas = _canvas(model, tried)
  rounds = stream(model.model, model.params, canvas, mesh=model.mesh, **settings)
  return (_infilling(model, tried[0], filled, 0) for filled in rounds)


def _tried(model: TextModel, text: str, lengths: Lengths) -> list[Blanked]:
  config = model.model.config
  limit = config.max_position - num_sinks(config)
  tried = []
  for blanked in blanks_in(text, model.tokenizer, lengths):
    if len(tried) == MAX_CHOICES:
      raise ValueError(f"more than {MAX_CHOICES} combinations of lengths: give fewer candidates")
    if blanked.size > limit:
      raise ValueError(
        f"blanks of {', '.join(map(str, blanked.lengths))} tokens make a text of {blanked.size}, "
        f"but the model takes at most {limit}"
      )
    tried.append(blanked)
  return tried


def _fitting(
  tried: Sequence[Blanked], constraint: TokenDfa | Sequence[TokenDfa | None] | None
) -> tuple[list[Blanked], list[list[TokenDfa | None]] | None]:
  """Returns those of the choices that constraints allow, and the constraints of their blanks."""
  tried = list(tried)
  if constraint is None:
    return tried, None
  blanks = len(tried[0].lengths)
  each: list[TokenDfa | None] = (
    [constraint] * blanks if isinstance(constraint, TokenDfa) else list(constraint)
  )
  if len(each) != blanks:
    raise ValueError(f"there are {len(each)} constraints, and the text has {blanks} blanks")
  if any(not piece for piece in tried[0].pieces[1:-1]):
    raise ValueError("two blanks with nothing between them are one: constrain a single blank")
  fit = [
    one
    for one in tried
    if all(
      dfa is None or dfa.accepts_length(length)
      for dfa, length in zip(each, one.lengths, strict=True)
    )
  ]
  # If none does, `fill` says of the first which lengths would.
  fit = fit or tried[:1]
  return fit, [each] * len(fit)


def _canvas(model: TextModel, tried: Sequence[Blanked]) -> Canvas:
  size = max(one.size for one in tried)
  token, is_target, valid = (np.zeros((len(tried), size), dtype) for dtype in (int, bool, bool))
  for row, one in enumerate(tried):
    token[row, : one.size], is_target[row, : one.size] = one.tokens(), one.is_target()
    valid[row, : one.size] = True
  return make_canvas(model.model.config, token, is_target, valid)


def _fit(
  model: TextModel, tried: Sequence[Blanked], canvas: Canvas, filled: Filled
) -> Float[np.ndarray, " B"]:
  """Returns the mean log-likelihood per token of each try: its blanks and the tokens after them."""
  judged, first = np.zeros(canvas.token.shape, bool), _first(model)
  for row, one in enumerate(tried):
    for _, stop in one.spans:
      judged[row, first + stop : min(first + stop + _AFTER, first + one.size)] = True
  judged |= np.asarray(canvas.is_target)
  scored = canvas.replace(
    token=filled.token, is_target=judged, is_context=canvas.is_context & ~judged
  )
  log_p = log_likelihood(model.model, model.params, scored, mesh=model.mesh)
  return log_p.sum(axis=1) / judged.sum(axis=1)


def _first(model: TextModel) -> int:
  """Returns the index where the text begins in a canvas: after the sink, if there is one."""
  return num_sinks(model.model.config)


def _infilling(model: TextModel, blanked: Blanked, filled: Filled, row: int) -> Infilling:
  here = slice(_first(model), _first(model) + blanked.size)
  token, decided_at = filled.token[row, here].tolist(), filled.decided_at[row, here].tolist()
  is_target = blanked.is_target()
  shown = [None if a and not w else x for x, a, w in zip(token, is_target, decided_at, strict=True)]
  return Infilling(
    text=_text(model, shown),
    blanks=[_text(model, shown, start, stop) for start, stop in blanked.spans],
    tokens=token,
    is_target=is_target,
    decided_at=decided_at,
    drafted=filled.drafted[row, here].tolist(),
    lengths=blanked.lengths,
    counters=filled.counters,
    history=None if filled.history is None else _in_text(filled.history, row, here.start),
  )


def _in_text(history: Sequence[RoundRecord], row: int, first: int) -> list[RoundRecord]:
  """Returns the history of one row, with entries as they stand in the text."""

  def moved(passes):
    return tuple(
      dataclasses.replace(one, entries=tuple(place - first for place in one.entries))
      for one in passes
    )

  rounds = ((record.seconds, record.rows[row]) for record in history)
  return [RoundRecord(seconds, (moved(passes) if passes else None,)) for seconds, passes in rounds]


def _text(
  model: TextModel, tokens: Sequence[int | None], start: int = 0, stop: int | None = None
) -> str:
  """Returns tokens[start:stop] decoded as they stand in the text, with "_" for each open one."""
  out, place = "", start
  for is_open, run in itertools.groupby(tokens[start:stop], key=lambda token: token is None):
    ids = [0 if token is None else token for token in run]
    if is_open:
      out += "_" * len(ids)
    elif place == 0:
      out += model.tokenizer.decode(ids)
    else:
      out += decode_continuation(model.tokenizer, ids)
    place += len(ids)
  return out
