r"""Writes texts with a model, to train its draft on: python -m experiments.write_texts

python -m experiments.write_texts --model=target --sources="builtin:tinyshakespeare" \
  --texts=2048 --output=written.jsonl

A text is the beginning of a row of the sources and the model's continuation: every second one is
greedy, the others are sampled. This is sequence-level distillation (1606.07947) on text like that
which the model verifies (2310.08461, section 4.2). The same command continues a file that ended
early: the texts depend on the flags alone. Each is one JSON line, {"text": ...}, which
experiments/train.py reads as a source.

With --prompt_format=chat, each document of the sources is a user's message, and the model answers:

python -m experiments.write_texts --model=smollm2 --prompt_format=chat --weights=stored \
  --sources='file:gsm8k/train.jsonl.gz#text_key={question}' --texts=2048 --prompt_tokens=256 \
  --temperature=0.7 --output=answers.jsonl

A line is {"text": ..., "ids": [...], "context": n}: the conversation's tokens, the first n of which
are the question in the model's template. file:answers.jsonl#ids_key=ids is the source of these
tokens, special ones included.
"""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, seldom
from mtjax.data import TrainBatches
from mtjax.data.sources import Source, documents
from mtjax.evaluate.sets.chat import chat_prompt
from mtjax.pretrained import WEIGHTS, for_decoding, load_pretrained
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

# Number of batches of messages that are sorted by length together.
_SORTED = 8

_MODEL = flags.DEFINE_string(
  "model", "target", "Model that writes: a bundled one, a folder or a Hugging Face id."
)
_SOURCES = flags.DEFINE_multi_string("sources", None, "Source of the beginnings; may be repeated.")
_OUTPUT = flags.DEFINE_string("output", None, 'JSON lines file to write, each line {"text": ...}.')
_TEXTS = flags.DEFINE_integer("texts", 8192, "Number of texts to write.", lower_bound=1)
_BATCH = flags.DEFINE_integer(
  "batch", 64, "Number of texts per batch, half of them greedy.", lower_bound=2
)
_PROMPT = flags.DEFINE_integer(
  "prompt_tokens", 64, "Number of tokens per beginning.", lower_bound=1
)
_TOKENS = flags.DEFINE_integer(
  "max_tokens", 192, "Number of tokens to write after a beginning.", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature", 1.0, "Temperature of the half of the texts that is sampled.", lower_bound=0.0
)
_WEIGHTS = flags.DEFINE_enum("weights", "float32", WEIGHTS, "Weights of the model that writes.")
_FORMAT = flags.DEFINE_enum(
  "prompt_format",
  "text",
  ["text", "chat"],
  "Whether the sources hold texts to continue or users' messages to answer.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the beginnings and of the samples.")


def run() -> None:
  output = Path(launch.required(_OUTPUT, "written.jsonl"))
  sources = launch.required(_SOURCES, "builtin:tinyshakespeare")
  launch.check_output(_OUTPUT, inputs=[_SOURCES])
  text = for_decoding(load_pretrained(_MODEL.value), _WEIGHTS.value)
  begin, write = dict(text=(_beginnings, _continue), chat=(_messages, _answer))[_FORMAT.value]
  prompts = begin(text, sources)
  batches = -(-_TEXTS.value // _BATCH.value)
  done, tell = _whole_batches(output), seldom(progress)
  with output.open("a", encoding="utf-8") as file:
    for number in range(batches):
      tell(f"batch {number + 1} of {batches}")
      rows = next(prompts)
      if number >= done:
        file.write("".join(json.dumps(record) + "\n" for record in write(text, rows, number)))
        file.flush()


def _beginnings(text: TextModel, sources: Sequence[str]) -> Iterator[list[list[int]]]:
  batches = TrainBatches(
    sources, text.tokenizer, batch=_BATCH.value, length=_PROMPT.value, seed=_SEED.value
  )
  return (batch["tokens"].tolist() for batch in batches)


def _messages(text: TextModel, sources: Sequence[str]) -> Iterator[list[list[int]]]:
  """Yields batches of users' messages in a chat, of similar length within a batch."""
  found = sorted({one for source in sources for one in documents(Source.parse(source))})
  if len(found) < _TEXTS.value:
    raise ValueError(f"the sources hold {len(found)} messages, but --texts={_TEXTS.value}")
  random.Random(_SEED.value).shuffle(found)
  window = _BATCH.value * _SORTED
  for first in range(0, len(found), window):
    rows = [
      chat_prompt(text.tokenizer, message, max_tokens=_PROMPT.value)
      for message in found[first : first + window]
    ]
    rows.sort(key=len)
    yield from (rows[at : at + _BATCH.value] for at in range(0, len(rows), _BATCH.value))


def _continue(text: TextModel, rows: list[list[int]], number: int) -> list[dict[str, Any]]:
  decode, special = text.tokenizer.decode, {text.tokenizer.bos_id, *text.tokenizer.eos_ids}
  whole = [[*row, *new] for row, new in zip(rows, _written(text, rows, number), strict=True)]
  return [dict(text=decode([token for token in one if token not in special])) for one in whole]


def _answer(text: TextModel, rows: list[list[int]], number: int) -> list[dict[str, Any]]:
  decode = text.tokenizer.decode
  return [
    dict(text=decode([*row, *new]), ids=[*row, *new], context=len(row))
    for row, new in zip(rows, _written(text, rows, number), strict=True)
  ]


def _written(text: TextModel, rows: list[list[int]], number: int) -> list[list[int]]:
  temperatures = [_TEMPERATURE.value * (row % 2) for row in range(len(rows))]
  _, generation = text.generate(
    rows,
    max_tokens=_TOKENS.value,
    sampling=Sampling(temperature=temperatures),
    key=_SEED.value + number,
  )
  return generation.tokens


def _whole_batches(output: Path) -> int:
  """Returns the number of whole batches in the file, and cuts off an incomplete one."""
  if not output.exists():
    return 0
  with output.open("rb+") as file:
    ends = list(itertools.accumulate(len(line) for line in file if line.endswith(b"\n")))
    batches = len(ends) // _BATCH.value
    file.truncate(ends[batches * _BATCH.value - 1] if batches else 0)
  return batches


if __name__ == "__main__":
  launch.main(run)
