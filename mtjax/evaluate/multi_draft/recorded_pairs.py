"""Predictions of a target and its draft model at the same positions of texts, kept in a file."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mtjax import frontier as frontier_lib
from mtjax.evaluate.texts import Documents, named_documents
from mtjax.models import check_causal
from mtjax.pretrained import load_pretrained
from mtjax.registry.drafters import check_vocabulary
from mtjax.text import TextModel

_BATCH = 8  # number of positions per forward pass


@dataclasses.dataclass(frozen=True)
class RecordedPairs:
  """Logits of both models after the same M contexts, and where they were recorded."""

  settings: dict[str, Any]  # JSON
  text: list[str]  # M names: the text of each position
  target: Float[np.ndarray, "M V"]
  draft: Float[np.ndarray, "M V"]

  def save(self, path: str | Path) -> None:
    """Writes an .npz file."""
    about = json.dumps(dict(settings=self.settings, text=self.text))
    with open(path, "wb") as file:
      np.savez(file, about=about, target=self.target, draft=self.draft)

  @classmethod
  def load(cls, path: str | Path, settings: Mapping[str, Any]) -> "RecordedPairs":
    """Reads a file that `save` wrote.

    Raises ValueError for any other file, and for pairs that were recorded with other settings.
    """
    try:
      with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        pairs = cls(about["settings"], about["text"], file["target"], file["draft"])
    except (KeyError, EOFError, TypeError, ValueError) as error:
      raise ValueError(f"{str(path)!r} holds no recorded pairs ({error})") from None
    other = [name for name in settings if settings[name] != pairs.settings.get(name)]
    if other:
      raise ValueError(
        f"{str(path)!r} was recorded with another {' and '.join(other)}: "
        f"{', '.join(repr(pairs.settings.get(name)) for name in other)}; name another file"
      )
    return pairs

  def probs(self, temperature: float) -> tuple[Float[np.ndarray, "M V"], Float[np.ndarray, "M V"]]:
    """Returns p and q at a temperature above 0, in float64."""
    if not temperature > 0:
      raise ValueError(f"the temperature must be above 0, got {temperature:g}")
    return _softmax(self.target / temperature), _softmax(self.draft / temperature)


def recorded(
  path: str | Path | None,
  target: str,
  draft: str,
  texts: Sequence[str],
  *,
  positions: int,
  context: int,
  progress: Callable[[str], None] = lambda message: None,
) -> RecordedPairs:
  """Returns the pairs in the file `path` if it exists; otherwise records pairs and writes it.

  target, draft: models for `load_pretrained`. texts: a "name=source" each. With path None nothing
  is written. Raises ValueError for models with different vocabularies or that are not causal, and
  what `record` and `RecordedPairs.load` raise.
  """
  settings: dict[str, Any] = dict(
    target=target, draft=draft, texts=list(texts), positions=positions, context=context
  )
  if path is not None and Path(path).exists():
    return RecordedPairs.load(path, settings)
  models = {name: load_pretrained(name) for name in (target, draft)}
  for name, text in models.items():
    check_causal(text.model, name)
  check_vocabulary(models[draft], models[target], draft)
  documents = named_documents(texts, models[target].tokenizer)
  pairs = record(
    models[target],
    models[draft],
    documents,
    positions=positions,
    context=context,
    settings=settings,
    progress=progress,
  )
  if path is not None:
    pairs.save(path)
  return pairs


def record(
  target: TextModel,
  draft: TextModel,
  texts: Mapping[str, Documents],
  *,
  positions: int,
  context: int,
  settings: Mapping[str, Any],
  progress: Callable[[str], None] = lambda message: None,
) -> RecordedPairs:
  """Runs both models on `positions` contexts of each text, spread evenly over its tokens.

  A context is the begin token and the tokens before the position in its document, of which at most
  the last `context` are kept. Raises ValueError for a text with fewer tokens than positions, and
  for contexts longer than a model's positions.
  """
  longest = min(one.model.config.max_position for one in (target, draft))
  if not 1 <= context <= longest:
    raise ValueError(f"context must be from 1 to {longest} tokens for these models, got {context}")
  names, rows = [], []
  for name, documents in texts.items():
    begin = target.tokenizer.bos_id
    chosen = contexts([tokens for tokens, _ in documents], positions, begin=begin, length=context)
    if len(chosen) < positions:
      raise ValueError(
        f"{name} has {len(chosen)} tokens, fewer than positions, which is {positions}"
      )
    names += [name] * positions
    rows += chosen
  logits = [
    _last_logits(one, rows, context, lambda done, who=who: progress(f"{who}: position {done}"))
    for who, one in (("target", target), ("draft", draft))
  ]
  return RecordedPairs(dict(settings), names, *logits)


def contexts(
  documents: Sequence[Int[np.ndarray, " L"]], count: int, *, begin: int, length: int
) -> list[list[int]]:
  """Returns the tokens before each of `count` tokens, or before all if there are fewer."""
  ends = np.cumsum([len(tokens) for tokens in documents])
  total = int(ends[-1]) if len(ends) else 0
  count = min(count, total)
  out = []
  for place in (index * total // count for index in range(count)):
    document = int(np.searchsorted(ends, place, side="right"))
    tokens = documents[document]
    before = [begin, *(int(token) for token in tokens[: place - int(ends[document]) + len(tokens)])]
    out.append(before[-length:])
  return out


def _last_logits(text, rows, width, progress):
  forward = jax.jit(
    lambda params, tokens, last: text.model.forward(params, frontier_lib.causal(tokens), rows=last)
  )
  out = np.zeros((len(rows), text.model.config.vocab_size), np.float32)
  for start in range(0, len(rows), _BATCH):
    part = rows[start : start + _BATCH]
    tokens = np.zeros((_BATCH, width), np.int32)
    last = np.zeros((_BATCH, 1), np.int32)
    for row, context in enumerate(part):
      tokens[row, : len(context)], last[row] = context, len(context) - 1
    logits = forward(text.params, jnp.asarray(tokens), jnp.asarray(last)).logits
    out[start : start + len(part)] = np.asarray(logits)[: len(part), 0]
    progress(start + len(part))
  return out


def _softmax(logits):
  exp = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
  return exp / exp.sum(axis=-1, keepdims=True)
