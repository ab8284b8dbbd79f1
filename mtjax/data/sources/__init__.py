"""Sources of text: files, JSON lines, TFDS, and texts that come with mtjax."""

from mtjax.data.sources.read import documents, files, fingerprint, token_documents
from mtjax.data.sources.source import Source

__all__ = [
  "Source",
  "documents",
  "files",
  "fingerprint",
  "token_documents",
]
