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

from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress, seldom
from mtjax.pretrained import WEIGHTS, for_decoding, load_pretrained
from mtjax.train.written_texts import WrittenTexts

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
  texts = WrittenTexts(
    sources=launch.required(_SOURCES, "builtin:tinyshakespeare"),
    texts=_TEXTS.value,
    batch=_BATCH.value,
    prompt_tokens=_PROMPT.value,
    max_tokens=_TOKENS.value,
    temperature=_TEMPERATURE.value,
    seed=_SEED.value,
    is_chat=_FORMAT.value == "chat",
  )
  launch.check_output(_OUTPUT, inputs=[_SOURCES])
  tell = seldom(progress)
  for number in texts.write(for_decoding(load_pretrained(_MODEL.value), _WEIGHTS.value), output):
    tell(f"batch {number + 1} of {texts.num_batches} is written")


if __name__ == "__main__":
  launch.main(run)
