"""Texts that a model writes, to train its draft on."""

import dataclasses
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtjax.data import TrainBatches
from mtjax.data.sources import Source, documents
from mtjax.evaluate.sets.chat import chat_prompt
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

# Number of batches of messages that are sorted by length together.
_SORTED = 8

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class WrittenTexts:
  """Settings of the texts. In a batch, every second row is greedy and the others are sampled.

  `sources` hold texts whose beginnings are continued or, with `is_chat`, users' messages that are
  answered.
  """

  sources: Sequence[str]
  texts: int
  batch: int = 64
  prompt_tokens: int = 64
  max_tokens: int = 192
  temperature: float = 1.0
  seed: int = 0
  is_chat: bool = False

  @property
  def num_batches(self) -> int:
    """The number of batches; the last one is whole as well."""
    return -(-self.texts // self.batch)

  def write(self, text: TextModel, output: Path) -> Iterator[int]:
    """Appends the texts to a file of JSON lines, and yields the number of each finished batch.

    Batches that the file already has are kept, and are the same as new ones would be; an incomplete
    one at its end is cut off. Raises ValueError if there are fewer messages than texts.
    """
    prompts = self._messages(text) if self.is_chat else self._beginnings(text)
    record = _answer if self.is_chat else _text
    done = whole_batches(output, self.batch)
    with output.open("a", encoding="utf-8") as file:
      for number in range(self.num_batches):
        rows = next(prompts)
        if number >= done:
          records = [record(text, row, new) for row, new in self._written(text, rows, number)]
          file.write("".join(json.dumps(one) + "\n" for one in records))
          file.flush()
        yield number

  def _beginnings(self, text: TextModel) -> Iterator[list[list[int]]]:
    batches = TrainBatches(
      self.sources, text.tokenizer, batch=self.batch, length=self.prompt_tokens, seed=self.seed
    )
    return (batch["tokens"].tolist() for batch in batches)

  def _messages(self, text: TextModel) -> Iterator[list[list[int]]]:
    """Yields batches of users' messages in a chat, of similar length within a batch."""
    messages = sorted({one for source in self.sources for one in documents(Source.parse(source))})
    if len(messages) < self.texts:
      raise ValueError(f"the sources hold {len(messages)} messages, but --texts={self.texts}")
    random.Random(self.seed).shuffle(messages)
    window = self.batch * _SORTED
    for first in range(0, len(messages), window):
      rows = [
        chat_prompt(text.tokenizer, message, max_tokens=self.prompt_tokens)
        for message in messages[first : first + window]
      ]
      rows.sort(key=len)
      yield from (rows[at : at + self.batch] for at in range(0, len(rows), self.batch))

  def _written(self, text: TextModel, rows: list[list[int]], number: int):
    temperatures = [self.temperature * (row % 2) for row in range(len(rows))]
    _, generation = text.generate(
      rows,
      max_tokens=self.max_tokens,
      sampling=Sampling(temperature=temperatures),
      key=self.seed + number,
    )
    return zip(rows, generation.tokens, strict=True)


def whole_batches(output: Path, batch: int) -> int:
  """Returns the number of whole batches in a file of JSON lines, and cuts off an incomplete one."""
  if not output.exists():
    return 0
  with output.open("rb+") as file:
    ends = list(itertools.accumulate(len(line) for line in file if line.endswith(b"\n")))
    batches = len(ends) // batch
    file.truncate(ends[batches * batch - 1] if batches else 0)
  return batches


def _text(text: TextModel, row: list[int], new: list[int]) -> Record:
  special = {text.tokenizer.bos_id, *text.tokenizer.eos_ids}
  return {"text": text.tokenizer.decode([token for token in [*row, *new] if token not in special])}


def _answer(text: TextModel, row: list[int], new: list[int]) -> Record:
  ids = [*row, *new]
  return {"text": text.tokenizer.decode(ids), "ids": ids, "context": len(row)}
