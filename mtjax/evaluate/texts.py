"""Texts to score, by name, for evaluation launchers and training runs."""

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from mtjax import hosts
from mtjax.data.pipeline import eval_documents
from mtjax.data.tokenizers import Tokenizer

Documents = list[tuple[np.ndarray, int]]  # (tokens, bytes of the text they stand for)

_ENTRY = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


def named_documents(
  entries: Sequence[str], tokenizer: Tokenizer, *, cache_dir: str = "", limit: int | None = None
) -> dict[str, Documents]:
  """Returns the tokenised documents of each "name=source" (see `mtjax.data.sources`), by name.

  About the first `limit` bytes of each are kept (None: all). Raises ValueError or FileNotFoundError
  for an entry that is not name=source, a name that occurs twice, and a source that cannot be read.
  """
  out: dict[str, Documents] = {}
  for entry in entries:
    parts = _ENTRY.fullmatch(entry)
    if parts is None:
      raise ValueError(f"{entry!r} is not name=source, as in books=file:valid/*.txt.gz")
    name, source = parts.groups()
    if name in out:
      raise ValueError(f"two texts are named {name!r}")
    documents = eval_documents(source, tokenizer, cache_dir=cache_dir)
    out[name] = documents if limit is None else _first(documents, tokenizer, limit)
  return out


def check_same_documents(texts: Mapping[str, Documents]) -> None:
  """Raises ValueError, in every process of a job, unless all have the same tokens by name.

  Every process must call it, with the same names.
  """
  for name, documents in texts.items():
    digest = hashlib.sha256()
    for tokens, size in documents:
      digest.update(f"{len(tokens)} {size} ".encode() + np.asarray(tokens, np.int64).tobytes())
    hosts.check_same(f"texts of {name!r} to score", digest.hexdigest())


def _first(documents: Documents, tokenizer: Tokenizer, limit: int) -> Documents:
  """Returns documents up to `limit` bytes; the last one is cut where a token ends."""
  width = np.array([len(token) for token in tokenizer.token_bytes()])
  out: Documents = []
  for tokens, size in documents:
    if size > limit:
      ends = np.cumsum(width[tokens])
      count = int(np.searchsorted(ends, limit, side="right"))
      tokens, size = tokens[:count], int(ends[count - 1]) if count else 0
    if len(tokens):
      out.append((tokens, size))
    limit -= size
    if limit <= 0 or not len(tokens):
      break
  return out
