r"""Makes a TFDS dataset of local text: python -m experiments.prepare_text

python -m experiments.prepare_text --name=plays --data_dir=datasets \
  --split="train=builtin:tinyshakespeare" --split="valid=builtin:tinyshakespeare#split=valid"

Prints the source that opens the first split, for --config.data.sources of experiments/train.py and
wherever else a source is accepted (mtjax.data.sources). Another name after split= opens another
split. A second run of the command finds the dataset; texts that have changed make another dataset.
TensorFlow is needed neither to write nor to read. docs/guides/data.md shows it in use.
"""

import contextlib
import io
from pathlib import Path

from absl import flags, logging

from mtjax.cli import flags as launch

_NAME = flags.DEFINE_string("name", None, "Name of the dataset, of the characters a-z, 0-9 and _.")
_SPLIT = flags.DEFINE_multi_string(
  "split", [], "Split to make, as name=source. Repeat the flag for several splits."
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Folder of TFDS datasets; it is made if it does not exist."
)


def run() -> None:
  name = launch.required(_NAME, "plays")
  folder = Path(launch.required(_DATA_DIR, "datasets")).expanduser().absolute()
  if not _SPLIT.value:
    raise ValueError('--split is missing, for example --split="train=file:books/*.txt"')
  splits: dict[str, str] = {}
  for entry in _SPLIT.value:
    split, _, source = entry.partition("=")
    if not source:
      raise ValueError(f"--split={entry} is not name=source, as in train=file:books/*.txt")
    if split in splits:
      raise ValueError(f"two of --split are named {split!r}")
    splits[split] = source
  from mtjax.data.sources.local_text import prepare

  # TFDS claims on standard output, and in a warning, that it downloads, which it does not.
  logging.set_verbosity(logging.ERROR)
  with contextlib.redirect_stdout(io.StringIO()):
    source = prepare(name, splits, data_dir=str(folder))
  print(f"{source};split={next(iter(splits))}")


if __name__ == "__main__":
  launch.main(run)
