"""Where batches come from, and the texts that a run is scored on."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mtjax.models import Params
from mtjax.train.config import RunConfig
from mtjax.train.rows import StoredRows


class Source(Protocol):
  """Endless batches: tokens, targets, segment, weight [B, L]; the state is JSON."""

  def __next__(self) -> dict[str, np.ndarray]: ...

  def get_state(self) -> dict[str, Any]: ...

  def set_state(self, state: dict[str, Any]) -> None: ...


def make_source(settings: RunConfig) -> Source:
  """The source that settings.data asks for: stored rows."""
  data = settings.data
  return StoredRows(data["rows"], batch=settings.batch, length=settings.length, seed=settings.seed)


def make_evaluation(settings: RunConfig) -> Callable[[Params], dict[str, float]] | None:
  """A function from parameters to bits per byte of every named text, None without texts."""
  return None
