"""Trains a byte-level BPE: python -m experiments.train_tokenizer --source=... --output=FILE.json

The bundled tokenizer, mtjax/assets/tokenizer.json (DATA is the developer data set):

python -m experiments.train_tokenizer --output=mtjax/assets/tokenizer.json \
  --source="file:DATA/books/train_children/*.txt.gz#header=-------;weight=2" \
  --source="file:DATA/pycode/stdlib_train.jsonl.gz#weight=2" \
  --source="file:DATA/gsm8k/train.jsonl.gz#text_key=Question: {question}\nAnswer: {answer}"
"""

import sys
from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch

_SOURCE = flags.DEFINE_multi_string(
  "source", [], "Text to train on, as a source (see mtjax/data/sources/read.py); may be repeated."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the tokenizer to.")
_VOCAB = flags.DEFINE_integer(
  "vocab_size", 4096, "Number of tokens of the vocabulary, including special ones."
)
_CHARACTERS = flags.DEFINE_integer(
  "characters", 10_000_000, "Number of characters to sample, by the sources' weights."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sample.")


def run() -> None:
  output = Path(launch.required(_OUTPUT, "tokenizer.json"))
  if not _SOURCE.value:
    raise ValueError('--source is missing, for example --source="file:books/*.txt"')
  if not output.parent.is_dir():
    raise FileNotFoundError(f"there is no folder {str(output.parent)!r} for --output")
  from mtjax.data import bpe
  from mtjax.data.sources import read as sources

  chosen = [sources.Source.parse(text) for text in _SOURCE.value]
  texts = bpe.sample(chosen, characters=_CHARACTERS.value, seed=_SEED.value)
  tokenizer = bpe.train([text for part in texts for text in part], vocab_size=_VOCAB.value)
  tokenizer.save(str(output))
  for source, part in zip(chosen, texts, strict=True):
    tokens = sum(len(code.ids) for code in tokenizer.encode_batch_fast(part))
    size = sum(len(text.encode()) for text in part)
    print(
      f"{size / tokens:.2f} bytes per token, {len(part)} documents: {source.uri}", file=sys.stderr
    )


if __name__ == "__main__":
  launch.main(run)
