"""Token ids of a source, computed once and kept on disk: a restart does not tokenise again."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mtjax.data.sources.read import documents, fingerprint, token_documents
from mtjax.data.sources.source import Source
from mtjax.data.tokenizers import Tokenizer
from mtjax.data.trimmed import ids_of

CACHE_DIR = "~/.cache/mtjax/tokens"
_FORMAT = 1
_CHUNK = 1 << 22  # number of characters tokenised at a time


@dataclasses.dataclass(frozen=True)
class TokenizedText:
  """Documents one after the other, each with an end token; `tokens` may be a memory map.

  Documents that were stored as tokens end as they were stored: an answer may be cut off.
  """

  tokens: Int[np.ndarray, " N"]  # uint16 or uint32
  ends: Int[np.ndarray, " D"]  # document d is tokens[ends[d - 1] : ends[d]], ends[-1] = 0
  sizes: Int[np.ndarray, " D"]  # bytes of the documents' UTF-8 text
  key: str  # hash of the content

  @functools.cached_property
  def starts(self) -> Int[np.ndarray, " D"]:
    return np.concatenate([[0], self.ends[:-1]])


def tokenized(source: Source, tokenizer: Tokenizer, *, cache_dir: str = "") -> TokenizedText:
  """Returns the source's tokens, from `cache_dir` ("": CACHE_DIR) if they are there.

  The key is a hash of the text, the options that read it and the tokenizer, so old content is never
  used. A folder appears under its key in one move: one that was being written when the process
  ended is never read. Raises what `documents` raises, and ValueError for a source without text.
  """
  parts = [_FORMAT, fingerprint(source), tokenizer.fingerprint()]
  key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
  home = Path(cache_dir or CACHE_DIR).expanduser()
  folder = home / key
  if not folder.is_dir():
    home.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=home))
    try:
      _write(work, source, tokenizer)
      _publish(work, folder)
    finally:
      shutil.rmtree(work, ignore_errors=True)
  arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ends", "sizes")}
  return TokenizedText(np.load(folder / "tokens.npy", mmap_mode="r"), key=key, **arrays)


def _publish(work: Path, folder: Path) -> None:
  try:
    work.rename(folder)
  except OSError:
    # Another process was faster with the same content.
    if not folder.is_dir():
      raise


def _write(folder: Path, source: Source, tokenizer: Tokenizer) -> None:
  dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
  lengths, sizes = [], []
  with (folder / "tokens.npy").open("w+b") as file:
    _header(file, dtype, 0)
    for ids, size in _stored(source, tokenizer) if source.ids_key else _texts(source, tokenizer):
      np.asarray(ids, dtype).tofile(file)
      lengths.append(len(ids))
      sizes.append(size)
    if not lengths:
      raise ValueError(f"there is no text in {source.uri!r}")
    file.seek(0)
    _header(file, dtype, sum(lengths))
    os.fsync(file.fileno())
  np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
  np.save(folder / "sizes.npy", np.asarray(sizes, np.int64))


def _texts(source: Source, tokenizer: Tokenizer) -> Iterator[tuple[list[int], int]]:
  """Yields each document's tokens with the end token, and its bytes."""
  for texts in _chunks(documents(source)):
    for text, ids in zip(texts, tokenizer.encode_documents(texts), strict=True):
      yield [*ids, tokenizer.eos_id], len(text.encode())


def _stored(source: Source, tokenizer: Tokenizer) -> Iterator[tuple[list[int], int]]:
  """Yields each stored document, without the begin token that rows add, and its bytes."""
  for where, tokens in token_documents(source):
    ids = ids_of(tokenizer, tokens, where)
    ids = ids[1:] if ids[0] == tokenizer.bos_id else ids
    if ids:
      yield ids, len(tokenizer.decode(ids).encode())


def _header(file, dtype, length: int) -> None:
  # numpy pads the header so that its size stays the same when the first axis grows.
  description = dict(descr=np.lib.format.dtype_to_descr(np.dtype(dtype)), fortran_order=False)
  np.lib.format.write_array_header_1_0(file, dict(description, shape=(length,)))


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
  chunk, size = [], 0
  for text in itertools.chain(texts, [None]):
    if chunk and (text is None or size > _CHUNK):
      yield chunk
      chunk, size = [], 0
    if text is not None:
      chunk.append(text)
      size += len(text)
