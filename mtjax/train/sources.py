"""Where batches come from, and the texts that a run is scored on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mtjax.data.sources import Source, documents
from mtjax.evaluate import perplexity
from mtjax.models import Params
from mtjax.train.config import RunConfig
from mtjax.train.rows import StoredRows


class Batches(Protocol):
  """Endless batches: tokens, targets, segment, weight [B, L]; the state is JSON."""

  def __next__(self) -> dict[str, np.ndarray]: ...

  def get_state(self) -> dict[str, Any]: ...

  def set_state(self, state: dict[str, Any]) -> None: ...


def make_source(settings: RunConfig) -> Batches:
  """The source that settings.data asks for. ValueError when it asks for none."""
  rows = settings.data["rows"]
  if not rows:
    raise ValueError("data.rows is empty; give the stored tokens, --config.data.rows=rows.npz")
  return StoredRows(
    rows,
    batch=settings.batch,
    length=settings.length,
    seed=settings.seed,
    vocab_size=settings.model.config.vocab_size,
  )


def make_evaluation(settings: RunConfig) -> Callable[[Params], dict[str, float]] | None:
  """A function from parameters to bits per byte of every text named, None without texts.

  settings.data["eval_texts"] are "name=source" (see mtjax.data.sources.Source); of each, the first
  eval_bytes count. Raises ValueError or FileNotFoundError for what cannot be read.
  """
  texts = settings.data["eval_texts"]
  if not texts:
    return None
  scored = {}
  for entry in texts:
    name, _, text = entry.partition("=")
    if not text:
      raise ValueError(f"data.eval_texts holds {entry!r}; it must be name=source")
    scored[name] = _documents(text, settings.data)
  length = min(settings.length, settings.model.config.max_position)

  def evaluate(params: Params) -> dict[str, float]:
    return {
      name: perplexity.score(
        settings.model,
        params,
        parts,
        start=settings.data["start"],
        length=length,
        context=length // 2,
      ).bits_per_byte
      for name, parts in scored.items()
    }

  return evaluate


def _documents(text: str, data: dict[str, Any]) -> list[tuple[Sequence[int], int]]:
  """(tokens, bytes) of the documents of a source, up to eval_bytes in all."""
  encode = _encoder(data["tokenizer"])
  left, out = data["eval_bytes"], []
  for document in documents(Source.parse(text)):
    # Cut in bytes, so the last character may be half there.
    document = document.encode()[:left].decode("utf-8", "ignore")
    out.append((encode(document), len(document.encode())))
    left -= len(document.encode())
    if left <= 0:
      break
  return out


def _encoder(path: str) -> Callable[[str], Sequence[int]]:
  if not path:
    return str.encode
  from tokenizers import Tokenizer

  if not Path(path).is_file():
    raise FileNotFoundError(f"data.tokenizer: there is no file {path!r}")
  tokenizer = Tokenizer.from_file(path)
  return lambda text: tokenizer.encode(text).ids
