"""Local text as a TFDS dataset: written once as array_record, opened by name without TensorFlow."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping

import tensorflow_datasets as tfds

from mtjax.data.sources.read import documents, fingerprint
from mtjax.data.sources.source import Source


@dataclasses.dataclass
class LocalTextConfig(tfds.core.BuilderConfig):
  """The name of a dataset, and the source of each split."""

  splits: Mapping[str, Source] = dataclasses.field(default_factory=dict)


class LocalText(tfds.core.GeneratorBasedBuilder):
  """A dataset of the documents of any source (`mtjax.data.sources`), one record {"text"} each."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = []

  def _info(self) -> tfds.core.DatasetInfo:
    # dataset_info_from_configs does not work here: it needs a README in the builder's package.
    return tfds.core.DatasetInfo(
      builder=self,
      description="Text from local files.",
      features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # nothing is fetched
    return {
      split: self._generate_examples(source) for split, source in self.builder_config.splits.items()
    }

  def _generate_examples(self, source: Source) -> Iterator[tuple[int, dict[str, str]]]:
    for number, text in enumerate(documents(source)):
      yield number, {"text": text}


def prepare(name: str, splits: Mapping[str, str | Source], *, data_dir: str) -> str:
  """Writes each split's documents below `data_dir`; returns the source string that opens them.

  The string names no split: add ";split=valid" for another than "train". The dataset's name ends in
  a hash of the content, so changed files make another dataset; an existing dataset is not written
  again, and a half-written one is never read. TFDS stores records in an order of its own, which
  follows from their numbers. Raises ValueError for a bad name, for no split and for a split without
  documents, and what the sources raise.
  """
  _check_name("a dataset", name)
  if not splits:
    raise ValueError('there is no split: give one, for example {"train": "file:books/*.txt"}')
  if ";" in data_dir:
    raise ValueError(f"data_dir must not contain a ;, which separates options, got {data_dir!r}")
  chosen = {split: Source.parse(source) for split, source in splits.items()}
  for split, source in chosen.items():
    _check_name("a split", split)
    if split == "all":
      raise ValueError("no split may be called 'all': that name means all of them together")
    if next(documents(source), None) is None:
      raise ValueError(f"the split {split!r} would be empty: {source.uri!r} holds no text")
  content = json.dumps({split: fingerprint(source) for split, source in chosen.items()})
  full = f"{name}_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
  tfds.disable_progress_bar()
  builder = LocalText(
    config=LocalTextConfig(name=full, splits=chosen), data_dir=data_dir, file_format="array_record"
  )
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  return f"tfds:local_text/{full}:{builder.version}#data_dir={data_dir}"


def _check_name(of: str, name: str) -> None:
  if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
    raise ValueError(f"{of}'s name must be of a-z, 0-9 and _ and begin with a letter, got {name!r}")
