"""Writes a model for decoding: python -m experiments.export --workdir=runs/x --output=m/x

The newest checkpoint of the run (its average of the parameters, if it keeps one) becomes a folder
that experiments/decode.py, transformers and others open: config.json, safetensors, tokenizer. With
--model=smollm2 in place of --workdir, or the path of a GGUF file, that model becomes one.

--vocabulary makes a small model out of it, to train as its draft (configs/train/smollm2_draft.py):
the most frequent tokens of that source, the first layers, some neurons (mtjax/models/trimming.py).
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from mtjax.cli import flags as launch

if TYPE_CHECKING:
  from mtjax.text import TextModel

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training run.")
_MODEL = flags.DEFINE_string(
  "model", None, "A model by name, folder, GGUF file or hub id, in place of a run."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the model to.")
_DTYPE = flags.DEFINE_enum(
  "dtype", "float32", ["float32", "bfloat16"], "Type of the stored weights."
)
_ADAPTER = flags.DEFINE_bool(
  "adapter", False, "With --workdir: write the run's LoRA adapters alone, in peft's format."
)
_TOKENIZER = flags.DEFINE_bool("tokenizer", True, "Write the tokenizer's files as well.")
_VOCABULARY = flags.DEFINE_string(
  "vocabulary", None, "Source whose most frequent tokens alone the model keeps, with --model."
)
_TOKENS = flags.DEFINE_integer("tokens", 4096, "With --vocabulary: number of tokens.", 1)
_LAYERS = flags.DEFINE_integer("layers", 2, "With --vocabulary: number of first layers.", 1)
_MLP = flags.DEFINE_integer("mlp_dim", 512, "With --vocabulary: number of neurons per layer.", 1)


def trimmed(text: "TextModel", name: str, source: str) -> "TextModel":
  """Returns the model's first layers with the tokens that are frequent in the source."""
  from mtjax.data.sources import Source
  from mtjax.data.token_cache import tokenized
  from mtjax.data.trimmed import TrimmedTokenizer
  from mtjax.models.trimming import trim

  tokenizer = text.tokenizer
  counts = np.bincount(tokenized(Source.parse(source), tokenizer).tokens)
  counts = np.pad(counts, (0, max(tokenizer.vocab_size - len(counts), 0)))
  rank = counts.copy()
  rank[[tokenizer.bos_id, *tokenizer.eos_ids]] = counts.sum() + 1
  ids = sorted(np.argsort(-rank, kind="stable")[: _TOKENS.value].tolist())
  print(f"{len(ids)} tokens are {counts[ids].sum() / counts.sum():.1%} of the source")
  model, params = trim(
    text.model, text.params, layers=range(_LAYERS.value), ids=ids, mlp_dim=_MLP.value
  )
  return dataclasses.replace(
    text, model=model, params=params, tokenizer=TrimmedTokenizer(tokenizer, ids, name)
  )


def run() -> None:
  if _MODEL.value is not None and _WORKDIR.value is not None:
    raise ValueError("give either --workdir or --model")
  workdir = None if _MODEL.value else launch.required(_WORKDIR, "runs/tiny")
  output = launch.required(_OUTPUT, "models/tiny")
  if workdir is not None and _VOCABULARY.value is not None:
    raise ValueError("--vocabulary trims the model of --model, and there is a --workdir")
  if _ADAPTER.value:
    from mtjax.train.export import save_trained_adapters

    if workdir is None:
      raise ValueError("--adapter writes the adapters of a run: give --workdir")
    count = save_trained_adapters(workdir, output, _DTYPE.value)
    print(f"adapters of {count:,} parameters as {_DTYPE.value} in {output}")
    return
  import jax

  from mtjax import checkpoints
  from mtjax.models import count_parameters
  from mtjax.pretrained import load_pretrained
  from mtjax.train.export import load_trained

  if workdir is None:
    text, what = load_pretrained(_MODEL.value), _MODEL.value
  else:
    text, step = load_trained(workdir)
    what = f"step {step}"
  if _VOCABULARY.value is not None:
    text = trimmed(text, _MODEL.value, _VOCABULARY.value)
  params = jax.tree.map(lambda x: x.astype(_DTYPE.value), text.params)
  tokenizer = text.tokenizer if _TOKENIZER.value else None
  checkpoints.save(output, text.model, params, tokenizer=tokenizer)
  print(f"{what}: {count_parameters(params):,} parameters as {_DTYPE.value} in {output}")


if __name__ == "__main__":
  launch.main(run)
