"""Where the text of one method first differs from that of another, and what the model says there.

Methods that are lossless write the same text. They add the same numbers in another order, because
their forward passes have more entries, so logits differ in their last digits. Where two tokens are
equal within that, either may be the largest: such a place is a tie and no error.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.evaluate.answers.methods import REFERENCE, AnsweringMethod
from mtjax.evaluate.answers.prompts import prompt_ids
from mtjax.evaluate.answers.protocol import Question
from mtjax.evaluate.answers.run import Answering
from mtjax.evaluate.tasks.protocol import Record
from mtjax.models import Model
from mtjax.rounds.prefill import commit_prompt
from mtjax.rounds.size_buckets import bucket
from mtjax.sharding import on_mesh
from mtjax.text import TextModel

_TIE = 1e-4  # of the larger logit: float32, summed in another order through all layers


@dataclasses.dataclass(frozen=True)
class TextDifference:
  """The first place at which two texts differ. A token is None if its text has ended there."""

  name: str
  turn: int
  place: int  # tokens of the turn's answer before it
  expected: int | None
  token: int | None
  logits: tuple[float, float] | None = None  # of `expected` and `token`, in plain decoding

  @property
  def is_tie(self) -> bool:
    """Whether the two logits are equal as far as float32 can tell."""
    if self.logits is None:
      return False
    one, other = self.logits
    return abs(one - other) <= _TIE * max(abs(one), abs(other))

  def told(self, method: str, reference: str) -> str:
    """Returns a sentence for a report."""
    text = (
      f"{self.name}, answer {self.turn + 1}: after {self.place} equal tokens {reference} writes "
      f"token {self.expected} and {method} writes {self.token}"
    )
    if self.logits is None:
      return text
    one, other = self.logits
    text += f"; their logits are {one:.6f} and {other:.6f}"
    return f"{text}, a tie in float32" if self.is_tie else text


def same_text(record: Record, reference: Record) -> bool:
  """Returns whether two records hold the same tokens in every turn."""
  return record["tokens"] == reference["tokens"]


def compared(
  model: TextModel,
  questions: Sequence[Question],
  records: Mapping[str, Sequence[Record]],
  methods: Mapping[str, AnsweringMethod],
  how: Answering,
) -> tuple[list[str], list[str]]:
  """Returns a sentence for each tie, and one for each method whose text must be `ar`'s and is not.

  The second names the method's first difference in the order of questions. `records` are those of
  `mtjax.evaluate.answers.run`. Sampled text has no ties: its tokens are not those of the largest
  logit.
  """
  by_name = {question.name: question for question in questions}
  references = {record["name"]: record for record in records[REFERENCE]}
  ties, errors = [], []
  for name, method in methods.items():
    if not method.same_text:
      continue
    for found in differences(records[name], records[REFERENCE]):
      question, reference = by_name[found.name], references[found.name]
      found = with_logits(found, model, how.prompt_format, question, reference)
      if found.is_tie and not how.temperature:
        ties.append(found.told(name, REFERENCE))
        continue
      errors.append(f"{name} must write the text of {REFERENCE}: {found.told(name, REFERENCE)}")
      break
  return ties, errors


def differences(records: Sequence[Record], references: Sequence[Record]) -> list[TextDifference]:
  """Returns the first difference of every question whose texts differ, in the order of questions.

  Both lists are about the same questions.
  """
  found = []
  for record, reference in zip(records, references, strict=True):
    for turn, (new, old) in enumerate(zip(record["tokens"], reference["tokens"], strict=True)):
      if new == old:
        continue
      same = [a == b for a, b in zip(new, old, strict=False)]
      place = same.index(False) if False in same else len(same)
      ids = [tokens[place] if place < len(tokens) else None for tokens in (old, new)]
      found.append(TextDifference(record["name"], turn, place, ids[0], ids[1]))
      break  # what follows in other turns follows from it
  return found


def with_logits(
  difference: TextDifference,
  model: TextModel,
  prompt_format: str,
  question: Question,
  reference: Record,
) -> TextDifference:
  """Returns the difference with the logits of both tokens, after the text that both share."""
  if difference.expected is None or difference.token is None:
    return difference
  before = reference["answers"][: difference.turn]
  ids = prompt_ids(model.tokenizer, prompt_format, question, before)
  ids += reference["tokens"][difference.turn][: difference.place]
  size = bucket(len(ids), maximum=model.model.config.max_position)
  padded = np.zeros((1, size), np.int32)
  padded[0, : len(ids)] = ids
  with on_mesh(model.mesh):
    logits = _last_logits(model.model, model.params, padded, jnp.array([len(ids)]))
  both = np.asarray(logits)[0, 0, [difference.expected, difference.token]]
  return dataclasses.replace(difference, logits=(float(both[0]), float(both[1])))


@functools.partial(jax.jit, static_argnums=0)
def _last_logits(model: Model, params, prompt, length):
  return commit_prompt(model, params, prompt, length, prompt.shape[1])[1]
