r"""Writes texts with a model, to train its draft on: python -m experiments.write_texts

python -m experiments.write_texts --model=target --sources="builtin:tinyshakespeare" \
  --texts=2048 --output=written.jsonl

Each text is the beginning of a row of the sources and the model's continuation: every second one is
greedy, the others are sampled at temperature 1. This is sequence-level distillation (1606.07947) on
text like that which the model verifies (2310.08461, section 4.2). The same command continues a file
that ended early: the texts depend on the flags alone. Each is one JSON line, {"text": ...}, which
experiments/train.py reads as a source.
"""

import itertools
import json
from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, seldom
from mtjax.data import TrainBatches
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

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
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the beginnings and of the samples.")


def run() -> None:
  output = Path(launch.required(_OUTPUT, "written.jsonl"))
  sources = launch.required(_SOURCES, "builtin:tinyshakespeare")
  launch.check_output(_OUTPUT, inputs=[_SOURCES])
  text = for_decoding(load_pretrained(_MODEL.value), "float32")
  beginnings = TrainBatches(
    sources, text.tokenizer, batch=_BATCH.value, length=_PROMPT.value, seed=_SEED.value
  )
  batches = -(-_TEXTS.value // _BATCH.value)
  done, tell = _whole_batches(output), seldom(progress)
  with output.open("a", encoding="utf-8") as file:
    for number in range(batches):
      tell(f"batch {number + 1} of {batches}")
      rows = next(beginnings)["tokens"]
      if number >= done:
        lines = [json.dumps({"text": one}) + "\n" for one in _write(text, rows, number)]
        file.write("".join(lines))
        file.flush()


def _write(text: TextModel, rows, number: int) -> list[str]:
  temperatures = [float(row % 2) for row in range(len(rows))]
  _, generation = text.generate(
    rows.tolist(),
    max_tokens=_TOKENS.value,
    sampling=Sampling(temperature=temperatures),
    key=_SEED.value + number,
  )
  decode, special = text.tokenizer.decode, {text.tokenizer.bos_id, *text.tokenizer.eos_ids}
  whole = [[*row, *new] for row, new in zip(rows.tolist(), generation.tokens, strict=True)]
  return [decode([token for token in one if token not in special]) for one in whole]


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
