"""The documents of a source, which is a short string in a config or on a command line."""

import dataclasses
import glob
import gzip
import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from mtjax.data.sources.source import Source, text_of
from mtjax.data.sources.text_files import UNREADABLE, parse_json

BUILTIN = ("tinyshakespeare",)
_SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")


def documents(source: Source) -> Iterator[str]:
  """Yields the source's documents in a fixed order; none is empty.

  Raises FileNotFoundError or ValueError that names the missing or wrong file and line, and
  ValueError for a source of token ids.
  """
  if source.ids_key:
    raise ValueError(f"{source.uri!r} holds token ids (ids_key), and texts are needed")
  if source.kind == "tfds":
    from mtjax.data.sources import tfds_text as catalogue

    texts = catalogue.documents(source)
  else:
    texts = (text for path in files(source) for text in _read(path, source))
  return (text for text in texts if text)


def token_documents(source: Source) -> Iterator[tuple[str, list[int]]]:
  """Yields (file and line, token ids) of the documents of a source with ids_key; none is empty.

  Raises FileNotFoundError or ValueError that names the missing or wrong file and line.
  """
  for path in files(source):
    for where, record in _records(path, _content(path)):
      tokens = record.get(source.ids_key)
      if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise ValueError(f"{where}: {source.ids_key!r} must hold a list of token ids")
      if tokens:
        yield where, tokens


def fingerprint(source: Source) -> str:
  """Returns a hash of the documents: of the files' bytes and the options that read them."""
  # The place of the files and the weight in a mixture do not matter.
  options = dataclasses.asdict(dataclasses.replace(source, weight=1.0, download=False))
  if not source.ids_key:
    del options["ids_key"]  # hashes of texts are those of the time before it
  if source.kind == "tfds":
    from mtjax.data.sources import tfds_text as catalogue

    options["data_dir"] = ""
    parts = [catalogue.identity(source)]
  else:
    options["uri"] = source.kind
    parts = []
    for path in files(source):
      with path.open("rb") as file:
        parts.append(path.name + hashlib.file_digest(file, "sha256").hexdigest())
  return hashlib.sha256(json.dumps([options, parts], sort_keys=True).encode()).hexdigest()


def files(source: Source) -> list[Path]:
  """Returns the files of a "file:" or "builtin:" source.

  Raises FileNotFoundError if there is none, and ValueError for a file of another kind.
  """
  if source.kind == "builtin":
    return [_builtin(source)]
  pattern = str(Path(source.name).expanduser())
  paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
  paths = [path for path in paths if path.is_file()]
  if not paths:
    raise FileNotFoundError(f"no file matches {source.name!r} (from {str(Path.cwd())!r})")
  for path in paths:
    if not path.name.endswith(_SUFFIXES):
      raise ValueError(f"the name of {str(path)!r} must end in one of: {', '.join(_SUFFIXES)}")
  return paths


def _builtin(source: Source) -> Path:
  if source.name not in BUILTIN:
    raise ValueError(f"there is no builtin:{source.name}; there is: {', '.join(BUILTIN)}")
  folder = Path(str(resources.files("mtjax") / "assets" / source.name))
  splits = {path.name.removesuffix(".txt.gz"): path for path in folder.glob("*.txt.gz")}
  if source.split not in splits:
    raise ValueError(f"{source.uri} has no split {source.split!r}; it has: {', '.join(splits)}")
  return splits[source.split]


def _content(path: Path) -> str:
  try:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
      return file.read().decode("utf-8-sig")
  except UNREADABLE as error:
    raise ValueError(f"{str(path)!r} cannot be read as UTF-8 text: {error}") from None


def _read(path: Path, source: Source) -> Iterator[str]:
  content = _content(path)
  if ".jsonl" in path.suffixes:
    for where, record in _records(path, content):
      yield text_of(record, source.text_key, where)
    return
  content = content.replace("\r\n", "\n").replace("\r", "\n")
  if source.header:
    _, separator, content = f"\n{content}".partition(f"\n{source.header}\n")
    if not separator:
      raise ValueError(f"{str(path)!r} has no header: no line is {source.header!r}")
    content = content.strip()
  yield from content.split("\n") if source.per == "line" else [content]


def _records(path: Path, content: str) -> Iterator[tuple[str, dict[str, Any]]]:
  for number, line in enumerate(content.split("\n"), 1):
    if line.strip():
      where = f"{path}, line {number}"
      record = parse_json(line, where)
      if not isinstance(record, dict):
        raise ValueError(f"{where}: it must be an object with keys")
      yield where, record
