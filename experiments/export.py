"""Writes a model for decoding: python -m experiments.export --workdir=runs/x --output=m/x

The newest checkpoint of the run (its average of the parameters, if it keeps one) becomes a folder
that experiments/decode.py, transformers and others open: config.json, safetensors, tokenizer. With
--model=smollm2 in place of --workdir, or the path of a GGUF file, that model becomes one.
"""

from absl import flags

from mtjax.cli import flags as launch

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training run.")
_MODEL = flags.DEFINE_string(
  "model", None, "A model by name, folder, GGUF file or hub id, in place of a run."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the model to.")
_DTYPE = flags.DEFINE_enum(
  "dtype", "float32", ["float32", "bfloat16"], "Type of the stored weights."
)
_TOKENIZER = flags.DEFINE_bool("tokenizer", True, "Write the tokenizer's files as well.")


def run() -> None:
  if _MODEL.value is not None and _WORKDIR.value is not None:
    raise ValueError("give either --workdir or --model")
  workdir = None if _MODEL.value else launch.required(_WORKDIR, "runs/tiny")
  output = launch.required(_OUTPUT, "models/tiny")
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
  params = jax.tree.map(lambda x: x.astype(_DTYPE.value), text.params)
  tokenizer = text.tokenizer if _TOKENIZER.value else None
  checkpoints.save(output, text.model, params, tokenizer=tokenizer)
  print(f"{what}: {count_parameters(params):,} parameters as {_DTYPE.value} in {output}")


if __name__ == "__main__":
  launch.main(run)
