"""GGUF files by path."""

from pathlib import Path

from mtjax.data.gguf.header import MAGIC

_SUFFIX = ".gguf"


def is_gguf(file: Path) -> bool:
  """Returns True for a file with the name or the first bytes of the format."""
  if not file.is_file():
    return False
  if file.suffix == _SUFFIX:
    return True
  with open(file, "rb") as stream:
    return stream.read(len(MAGIC)) == MAGIC


def gguf_in(folder: Path) -> Path | None:
  """Returns the one GGUF file of a folder, or None without any.

  Raises ValueError that lists them if there are several: often they are one model in several
  quantisations, and only the user knows which one is meant.
  """
  files = sorted(file for file in folder.glob(f"*{_SUFFIX}") if file.is_file())
  if len(files) > 1:
    raise ValueError(
      f"{folder} holds several GGUF files: {', '.join(file.name for file in files)}. Give the path "
      "of one of them"
    )
  return files[0] if files else None
