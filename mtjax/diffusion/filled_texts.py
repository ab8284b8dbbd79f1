"""Continuing prompts with an any-subset model: its masks after a prompt are filled in any order."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Int

from mtjax.anysubset import Canvas, Filled, FillMethod, fill, make_canvas, stream
from mtjax.anysubset.canvas import has_query, num_sinks, query_token
from mtjax.constraints.batch import Constraint
from mtjax.diffusion.denoising.prepare import padded_rows
from mtjax.diffusion.denoising.result import Denoised
from mtjax.diffusion.extents import Targets, extents_of
from mtjax.diffusion.texts import completion_of, prompt_ids, show_trace
from mtjax.diffusion.traces.filled import trace_of
from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.sampling.logits import Sampling, Seeds, row_keys
from mtjax.text import Completion, Prompt, TextModel

# (canvas, keys) -> ranks
Ranks = Callable[[Canvas, Seeds], Int[Array, "B L"]]


def check_fills(model: TextModel) -> None:
  """Raises ValueError, with the model's name, for one that is no any-subset model with queries."""
  config, name = model.model.config, repr(model.name) if model.name else "this model"
  if config.predicts != "any_subset":
    raise ValueError(
      f"filling masks in any order needs an any-subset model, such as mtjax.load('anysubset'): "
      f"{name} predicts {config.predicts!r} (config.predicts)"
    )
  if not has_query(config):
    raise ValueError(
      f"{name} has no embedding for masks: give the name 'query' to an extra embedding, or set "
      f"mask_id to a token of the vocabulary (extra_names is {config.extra_names})"
    )


def fill_texts(
  model: TextModel,
  prompts: Sequence[Prompt],
  *,
  length: int,
  method: FillMethod,
  ranks: Ranks | None = None,
  sampling: Sampling | None = None,
  key: Seeds = 0,
  eos: Sequence[int] | None = None,
  constraint: Constraint = None,
  trace: bool = False,
  on_pass: Callable[[CanvasFrame], None] | None = None,
) -> tuple[list[Completion], Denoised]:
  """Returns the text of at most `length` tokens after each prompt, and what the canvases cost.

  A row's canvas is its prompt, which is context, and `length` targets after it.
  `mtjax.anysubset.fill` fills the targets. A row ends when an end token is decided and nothing
  before it is open: one of `eos`; None: of the tokenizer's. `ranks` makes the order (None:
  the lattice's, or the method's own). `constraint`: what a text must match, one for all rows or one
  per row. `on_pass` is called with the canvases before the first pass and after each round; the
  text is the same without it, and comes from one program. `trace`: whether to keep what each pass
  decided, with log-probabilities, for `mtjax.diffusion.denoising.replay`; the text is the same, and
  `on_pass` is then called after the run, with the canvases after each pass of a round.

  Raises ValueError as `check_fills` and `fill` do, for an empty prompt, and for a canvas that is
  longer than the model's positions.
  """
  check_fills(model)
  config, tokenizer = model.model.config, model.tokenizer
  ids = prompt_ids(model, prompts)
  canvas = _canvas(config, ids, length)
  keys = row_keys(key, len(ids))
  eos = model.end_tokens(eos)
  if constraint is not None and not eos:
    raise ValueError("a constrained text ends with an end token, and there is none")
  settings: dict[str, Any] = dict(
    method=method, sampling=sampling, key=keys, eos=eos, constraint=constraint, mesh=model.mesh
  )
  if ranks is not None:
    settings["rank"] = ranks(canvas, keys)
  first = [num_sinks(config) + len(prompt) for prompt in ids]
  places = [np.arange(start, start + length) for start in first]
  if on_pass is None or trace:
    filled = fill(model.model, model.params, canvas, history=trace, **settings)
  else:
    rounds = stream(model.model, model.params, canvas, **settings)
    on_pass(CanvasFrame(0, [[None] * length] * len(ids), [[0] * length] * len(ids)))
    for filled in rounds:
      on_pass(_frame(filled, first, length))
  run = _result(filled, places, eos)
  if trace:
    run = dataclasses.replace(run, trace=trace_of(model.model, method, filled))
    show_trace(run, ids, length, on_pass)
  rows = zip(prompts, run.tokens, strict=True)
  return [completion_of(tokenizer, prompt, tokens, eos) for prompt, tokens in rows], run


def fill_targets(
  model: TextModel,
  texts: Sequence[Sequence[int]],
  is_target: Targets,
  *,
  method: FillMethod,
  ranks: Ranks | None = None,
  sampling: Sampling | None = None,
  key: Seeds = 0,
) -> Denoised:
  """Returns the tokens that an any-subset model gives to the targets of texts, and their cost.

  `is_target`: one list of bool per text; the tokens of targets mean nothing. Other arguments are
  those of `fill_texts`. Raises ValueError as `check_fills` and `make_canvas` do, for no text, and
  for targets that do not fit the texts.
  """
  check_fills(model)
  config = model.model.config
  extents_of(texts, [0] * len(texts), 0, is_target, query_token(config))
  size = max(map(len, texts))
  canvas = make_canvas(
    config,
    padded_rows(texts, size, np.int32),
    padded_rows(is_target, size, bool),
    padded_rows([[True] * len(text) for text in texts], size, bool),
  )
  keys = row_keys(key, len(texts))
  settings: dict[str, Any] = dict(method=method, sampling=sampling, key=keys, mesh=model.mesh)
  if ranks is not None:
    settings["rank"] = ranks(canvas, keys)
  filled = fill(model.model, model.params, canvas, **settings)
  places = [num_sinks(config) + np.flatnonzero(row) for row in is_target]
  return _result(filled, places, ())


def _canvas(config, prompts: Sequence[Sequence[int]], length: int) -> Canvas:
  if not prompts:
    raise ValueError("there is no prompt: give at least one")
  sizes = [len(prompt) + length for prompt in prompts]
  limit = config.max_position - num_sinks(config)
  for row, (prompt, size) in enumerate(zip(prompts, sizes, strict=True)):
    if not prompt:
      raise ValueError(f"prompt {row} is empty: give it at least one token")
    if size > limit:
      raise ValueError(
        f"row {row} has a canvas of {size} entries, {len(prompt)} of them its prompt, and the "
        f"model has {limit} positions"
      )
  token = np.zeros((len(prompts), max(sizes)), int)
  for row, prompt in enumerate(prompts):
    token[row, : len(prompt)] = prompt
  place, start = np.arange(max(sizes)), np.array([[len(prompt)] for prompt in prompts])
  valid = place < start + length
  return make_canvas(config, token, valid & (place >= start), valid)


def _frame(filled: Filled, first: Sequence[int], length: int) -> CanvasFrame:
  tokens, decided = [], []
  for row, start in enumerate(first):
    here = slice(start, start + length)
    at = filled.decided_at[row, here].tolist()
    new = filled.token[row, here].tolist()
    tokens.append([token if pass_ else None for token, pass_ in zip(new, at, strict=True)])
    decided.append(at)
  return CanvasFrame(int(filled.forwards.max()), tokens, decided)


def _result(
  filled: Filled, places: Sequence[Int[np.ndarray, " N"]], eos: Sequence[int]
) -> Denoised:
  tokens, decided = [], []
  for row, here in enumerate(places):
    token, at = filled.token[row, here], filled.decided_at[row, here]
    # The row may have ended before its last targets were decided.
    known = len(here) if at.all() else int(np.argmin(at > 0))
    ends = np.flatnonzero(np.isin(token[:known], eos))
    size = ends[0] + 1 if ends.size else known
    tokens.append(token[:size].tolist())
    decided.append(at[:size].tolist())
  count, forwards = sum(map(len, tokens)), int(filled.forwards.sum())
  seconds = filled.counters["seconds"]
  return Denoised(
    tokens=tokens,
    decided_at=decided,
    passes=filled.forwards,
    forwards=filled.forwards,
    counters=dict(
      tokens=count,
      forwards=forwards,
      tokens_per_forward=count / forwards,
      seconds=seconds,
      compile_seconds=filled.counters["compile_seconds"],
      tokens_per_second=count / seconds,
    ),
  )
