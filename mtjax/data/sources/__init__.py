"""Where text comes from: files, JSON lines, TFDS, and what ships with mtjax."""

from mtjax.data.sources.read import documents, files, fingerprint
from mtjax.data.sources.source import Source

__all__ = [
  "Source",
  "documents",
  "files",
  "fingerprint",
]
