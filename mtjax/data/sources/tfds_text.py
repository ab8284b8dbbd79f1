"""Text of TFDS datasets without TensorFlow, if they are prepared as array_record."""

import contextlib
import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from mtjax.data.sources.source import Source

# tensorflow_datasets finds builders by importing folders one after the other and stops, silently,
# at the first one that lacks a package. Builders that were imported before are found nevertheless.
_GROUPS = ("text", "translate", "summarization", "structured", "question_answering")


def documents(source: "Source") -> Iterator[str]:
  """Yields the texts of source.split in stored order.

  It reads prepared datasets. With source.download it also fetches and prepares one, which for most
  datasets needs TensorFlow or apache_beam once. Raises FileNotFoundError for a dataset that is not
  prepared, and ValueError for an unknown name, version, split or key.
  """
  from mtjax.data.sources.source import text_of

  records = _open(source)
  for index in range(len(records)):
    record = {
      key: value.decode("utf-8") if isinstance(value, bytes) else value
      for key, value in records[index].items()
    }
    yield text_of(record, source.text_key, source.uri)


def identity(source: "Source") -> str:
  """Returns a hash of a prepared dataset's state: its name, and its files' sizes and times."""
  # This comes first, so that a missing dataset raises the errors of `documents`.
  length = len(_open(source))
  folder = Path(str(_tfds().builder(source.name, **_where(source)).data_path))
  paths = sorted(folder.glob("*")) if folder.is_dir() else []
  files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
  return hashlib.sha256(json.dumps([source.name, length, files]).encode()).hexdigest()


def _open(source: "Source"):
  """Returns a sequence of records; see `documents` for the errors."""
  tfds = _tfds()
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  try:
    return _with_all_builders(
      lambda: tfds.data_source(
        source.name,
        split=source.split,
        download=source.download,
        # With data_dir, the default would be tfrecord, which needs TensorFlow.
        builder_kwargs=dict(file_format="array_record"),
        download_and_prepare_kwargs=dict(download_config=config),
        data_dir=source.data_dir or None,
      )
    )
  except Exception as error:
    # TFDS has another type of error for each mistake, such as AssertionError for a version.
    raise _explained(source, error) from None


def _explained(source: "Source", error: Exception) -> Exception:
  reason = str(error).strip().split("\n")[0].strip("\"'").split('}": ')[-1]
  where = source.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  if isinstance(error, _tfds().core.DatasetNotFoundError):
    return ValueError(f"TFDS knows no dataset {source.name!r}, and {where} holds none of that name")
  if "splits` is empty" in reason:
    return FileNotFoundError(
      f"{source.uri} is not prepared in {where}. Point data_dir (or TFDS_DATA_DIR) at a folder "
      f'that has it, or prepare it once where there is a network: "{source.uri}#download=true" '
      "(many datasets also need TensorFlow or apache_beam for that, not for reading)"
    )
  if "file format" in reason.lower():
    return ValueError(
      f"{source.uri} in {where} is not stored as array_record, the only format that can be read "
      f"without TensorFlow: prepare it again with file_format='array_record' ({reason})"
    )
  return ValueError(f"{source.uri}, split {source.split!r}: {reason}")


def _with_all_builders(call):
  try:
    return call()
  except _tfds().core.DatasetNotFoundError:
    for group in _GROUPS:
      # A group that needs a missing package has already imported some of its builders.
      with contextlib.suppress(ImportError):
        importlib.import_module(f"tensorflow_datasets.{group}")
    return call()


def _where(source: "Source") -> dict[str, Any]:
  return dict(data_dir=source.data_dir or None, file_format="array_record")


def _tfds():
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  return tfds
