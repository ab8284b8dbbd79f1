"""Local text as a TFDS dataset: written once as array_record, opened by name, no TensorFlow."""

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
  """A name, and the source of each split."""

  splits: Mapping[str, Source] = dataclasses.field(default_factory=dict)


class LocalText(tfds.core.GeneratorBasedBuilder):
  """Documents of any source (see `mtjax.data.sources`), one record {"text"} each."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = []

  def _info(self) -> tfds.core.DatasetInfo:
    # Not dataset_info_from_configs: it looks for a README of the builder's own package.
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

  The string lacks only a split: add ";split=valid" for another than "train". The dataset's name
  ends in a hash of the content, so changed files make another dataset; what is there already is
  not written again, and what is half written is not seen. TFDS stores records in an order of its
  own, drawn from their numbers. Raises ValueError for a bad name, for no split and for one that
  would hold no document, and what the sources raise.
  """
  _check_name("a dataset", name)
  if not splits:
    raise ValueError('there is no split; give for example {"train": "file:books/*.txt"}')
  if ";" in data_dir:
    raise ValueError(f"{data_dir!r} cannot stand in a source: it holds a ;")
  chosen = {split: Source.parse(source) for split, source in splits.items()}
  for split, source in chosen.items():
    _check_name("a split", split)
    if split == "all":
      raise ValueError("no split may be called 'all': that name stands for all of them together")
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
    raise ValueError(f"{of}'s name is of a-z, 0-9 and _ and begins with a letter: {name!r}")
