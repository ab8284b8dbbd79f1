"""Infilling of text: `infill(model, "given ___ given", lengths=8)`."""

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
  sink_token,
  stream,
)
from mtjax.anysubset.blanks import Blanked, Lengths, blanks_in
from mtjax.data.pieces import decode_continuation
from mtjax.sampling.logits import Sampling, Seed
from mtjax.text import TextModel

MAX_CHOICES = 64  # combinations of candidate lengths that are tried, in one batch
_AFTER = 32  # given tokens behind a blank that its length is judged by


@dataclasses.dataclass(frozen=True)
class Infilling:
  """A text with its blanks filled, and how it came about."""

  text: str
  blanks: list[str]
  tokens: list[int]
  is_target: list[bool]
  decided_at: list[int]  # forward pass that decided a token, from 1; 0: given or still open
  drafted: list[bool]  # decided tokens that were accepted drafts
  lengths: tuple[int, ...]  # of the blanks, as given or chosen
  counters: dict[str, Any]


def infill(
  model: TextModel,
  text: str,
  *,
  lengths: Lengths,
  method: FillMethod = SelfDraft(),
  sampling: Sampling | None = None,
  key: Seed = 0,
) -> Infilling:
  """Fills every ___ of the text with tokens from their joint law given all the rest.

  `lengths`: tokens a blank, one for all or one each; or, in place of one, candidates, as
  (4, (2, 3, 5)). All combinations are then filled, and the one is taken whose mean log-likelihood
  a token is highest, over the blanks and up to 32 given tokens behind each, from left to right
  given the rest: what follows a blank of the wrong length is unlikely. `method`, `sampling` and
  `key` are those of `mtjax.anysubset.fill`.

  Raises ValueError, before compilation, for a text without a blank, a mask token in what is given,
  lengths that are no lengths of its blanks, more than 64 combinations, a text that with its blanks
  is longer than the model's positions, and what `fill` refuses.
  """
  tried = _tried(model, text, lengths)
  canvas = _canvas(model, tried)
  found = fill(model.model, model.params, canvas, method=method, sampling=sampling, key=key)
  best = int(np.argmax(_fit(model, tried, canvas, found))) if len(tried) > 1 else 0
  return _infilling(model, tried[best], found, best)


def stream_infill(
  model: TextModel,
  text: str,
  *,
  lengths: Lengths,
  method: FillMethod = SelfDraft(),
  sampling: Sampling | None = None,
  key: Seed = 0,
) -> Iterator[Infilling]:
  """The same text round by round: open tokens have `decided_at` 0. No candidates: ValueError."""
  tried = _tried(model, text, lengths)
  if len(tried) > 1:
    raise ValueError("a length that is still to be chosen cannot be streamed: give one a blank")
  rounds = stream(
    model.model, model.params, _canvas(model, tried), method=method, sampling=sampling, key=key
  )
  return (_infilling(model, tried[0], found, 0) for found in rounds)


def _tried(model: TextModel, text: str, lengths: Lengths) -> list[Blanked]:
  config = model.model.config
  limit = config.max_position - (sink_token(config) is not None)
  tried = []
  for blanked in blanks_in(text, model.tokenizer, lengths):
    if len(tried) == MAX_CHOICES:
      raise ValueError(f"more than {MAX_CHOICES} combinations of lengths: give fewer candidates")
    if blanked.size > limit:
      raise ValueError(
        f"blanks of {', '.join(map(str, blanked.lengths))} tokens make a text of {blanked.size}, "
        f"and the model has room for {limit}"
      )
    tried.append(blanked)
  return tried


def _canvas(model: TextModel, tried: Sequence[Blanked]) -> Canvas:
  size = max(one.size for one in tried)
  token, is_target, valid = (np.zeros((len(tried), size), dtype) for dtype in (int, bool, bool))
  for row, one in enumerate(tried):
    token[row, : one.size], is_target[row, : one.size] = one.tokens(), one.is_target()
    valid[row, : one.size] = True
  return make_canvas(model.model.config, token, is_target, valid)


def _fit(
  model: TextModel, tried: Sequence[Blanked], canvas: Canvas, found: Filled
) -> Float[np.ndarray, " B"]:
  """Mean log-likelihood a token of each try: its blanks and what stands behind them."""
  judged, first = np.zeros(canvas.token.shape, bool), _first(model)
  for row, one in enumerate(tried):
    for _, stop in one.spans:
      judged[row, first + stop : min(first + stop + _AFTER, first + one.size)] = True
  judged |= np.asarray(canvas.is_target)
  asking = canvas.replace(
    token=found.token, is_target=judged, is_context=canvas.is_context & ~judged
  )
  return log_likelihood(model.model, model.params, asking).sum(axis=1) / judged.sum(axis=1)


def _first(model: TextModel) -> int:
  """Where the text begins in a canvas: behind the sink, where there is one."""
  return int(sink_token(model.model.config) is not None)


def _infilling(model: TextModel, blanked: Blanked, found: Filled, row: int) -> Infilling:
  here = slice(_first(model), _first(model) + blanked.size)
  token, decided_at = found.token[row, here].tolist(), found.decided_at[row, here].tolist()
  is_target = blanked.is_target()
  shown = [None if a and not w else x for x, a, w in zip(token, is_target, decided_at, strict=True)]
  return Infilling(
    text=_text(model, shown),
    blanks=[_text(model, shown, start, stop) for start, stop in blanked.spans],
    tokens=token,
    is_target=is_target,
    decided_at=decided_at,
    drafted=found.drafted[row, here].tolist(),
    lengths=blanked.lengths,
    counters=found.counters,
  )


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
