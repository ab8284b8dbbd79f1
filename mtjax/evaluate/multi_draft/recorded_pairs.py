"""What a target and its draft model predict at the same positions of real texts, kept in a file."""

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

_BATCH = 8  # positions of one forward pass


@dataclasses.dataclass(frozen=True)
class RecordedPairs:
  """Logits of both models after the same M contexts, and what they were recorded from."""

  settings: dict[str, Any]  # JSON
  text: list[str]  # of M: the name of the text that a position is in
  target: Float[np.ndarray, "M V"]
  draft: Float[np.ndarray, "M V"]

  def save(self, path: str | Path) -> None:
    """Writes an .npz file."""
    about = json.dumps(dict(settings=self.settings, text=self.text))
    with open(path, "wb") as file:
      np.savez(file, about=about, target=self.target, draft=self.draft)

  @classmethod
  def load(cls, path: str | Path, settings: Mapping[str, Any]) -> "RecordedPairs":
    """Reads what `save` wrote.

    Raises ValueError for another file, and for pairs that were recorded with other settings.
    """
    try:
      with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        found = cls(about["settings"], about["text"], file["target"], file["draft"])
    except (KeyError, EOFError, TypeError, ValueError) as error:
      raise ValueError(f"{str(path)!r} holds no recorded pairs ({error})") from None
    other = [name for name in settings if settings[name] != found.settings.get(name)]
    if other:
      raise ValueError(
        f"{str(path)!r} was recorded with another {' and '.join(other)}: "
        f"{', '.join(repr(found.settings.get(name)) for name in other)}; name another file"
      )
    return found

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
  """Returns the pairs in the file `path` if there is one; else records them and writes it.

  target, draft: models for `load_pretrained`. texts: name=source each. path None: no file. Raises
  ValueError for models of different vocabularies or that are no causal ones, and what `record` and
  `RecordedPairs.load` raise.
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

  A context is the begin token and what stands before the position in its document, its last
  `context` tokens at most. Raises ValueError for a text with fewer tokens than positions, and for
  contexts longer than a model's positions.
  """
  longest = min(one.model.config.max_position for one in (target, draft))
  if not 1 <= context <= longest:
    raise ValueError(f"contexts are of 1 to {longest} tokens for these models, got {context}")
  names, rows = [], []
  for name, documents in texts.items():
    begin = target.tokenizer.bos_id
    found = contexts([tokens for tokens, _ in documents], positions, begin=begin, length=context)
    if len(found) < positions:
      raise ValueError(f"{name} has {len(found)} tokens, {positions} positions were asked for")
    names += [name] * positions
    rows += found
  logits = [
    _last_logits(one, rows, context, lambda done, who=who: progress(f"{who}: position {done}"))
    for who, one in (("target", target), ("draft", draft))
  ]
  return RecordedPairs(dict(settings), names, *logits)


def contexts(
  documents: Sequence[Int[np.ndarray, " L"]], count: int, *, begin: int, length: int
) -> list[list[int]]:
  """Returns what precedes each of `count` tokens, or of all if there are fewer."""
  ends = np.cumsum([len(tokens) for tokens in documents])
  total = int(ends[-1]) if len(ends) else 0
  count = min(count, total)
  found = []
  for place in (index * total // count for index in range(count)):
    document = int(np.searchsorted(ends, place, side="right"))
    tokens = documents[document]
    before = [begin, *(int(token) for token in tokens[: place - int(ends[document]) + len(tokens)])]
    found.append(before[-length:])
  return found


def _last_logits(text, rows, width, progress):
  forward = jax.jit(
    lambda params, tokens, last: text.model.forward(params, frontier_lib.causal(tokens), rows=last)
  )
  found = np.zeros((len(rows), text.model.config.vocab_size), np.float32)
  for start in range(0, len(rows), _BATCH):
    part = rows[start : start + _BATCH]
    tokens = np.zeros((_BATCH, width), np.int32)
    last = np.zeros((_BATCH, 1), np.int32)
    for row, context in enumerate(part):
      tokens[row, : len(context)], last[row] = context, len(context) - 1
    logits = forward(text.params, jnp.asarray(tokens), jnp.asarray(last)).logits
    found[start : start + len(part)] = np.asarray(logits)[: len(part), 0]
    progress(start + len(part))
  return found


def _softmax(logits):
  exp = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
  return exp / exp.sum(axis=-1, keepdims=True)
