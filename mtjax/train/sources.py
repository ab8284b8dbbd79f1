"""Where batches come from, and the texts that a run is scored on."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mtjax.evaluate import perplexity
from mtjax.models import Params
from mtjax.train.config import RunConfig
from mtjax.train.rows import StoredRows


class Source(Protocol):
  """Endless batches: tokens, targets, segment, weight [B, L]; the state is JSON."""

  def __next__(self) -> dict[str, np.ndarray]: ...

  def get_state(self) -> dict[str, Any]: ...

  def set_state(self, state: dict[str, Any]) -> None: ...


def make_source(settings: RunConfig) -> Source:
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

  settings.data["eval_texts"] are "name=file" of UTF-8 text, .gz or not; of each, the first
  eval_bytes count. Raises ValueError or FileNotFoundError for what cannot be read.
  """
  texts = settings.data["eval_texts"]
  if not texts:
    return None
  documents = {}
  for entry in texts:
    name, _, path = entry.partition("=")
    if not path:
      raise ValueError(f"data.eval_texts holds {entry!r}; it must be name=file")
    documents[name] = _document(Path(path), settings.data)
  length = min(settings.length, settings.model.config.max_position)

  def evaluate(params: Params) -> dict[str, float]:
    return {
      name: perplexity.score(
        settings.model,
        params,
        [document],
        start=settings.data["start"],
        length=length,
        context=length // 2,
      ).bits_per_byte
      for name, document in documents.items()
    }

  return evaluate


def _document(path: Path, data: dict[str, Any]) -> tuple[Sequence[int], int]:
  _check_file("data.eval_texts", path)
  with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
    raw = file.read(data["eval_bytes"])
  if not data["tokenizer"]:
    return raw, len(raw)
  from tokenizers import Tokenizer

  _check_file("data.tokenizer", Path(data["tokenizer"]))
  # The last character may be cut in two.
  text = raw.decode("utf-8", "ignore")
  return Tokenizer.from_file(data["tokenizer"]).encode(text).ids, len(text.encode())


def _check_file(field: str, path: Path) -> None:
  if not path.is_file():
    raise FileNotFoundError(f"{field}: there is no file {str(path)!r}")
