"""Tokenizer files of a Hugging Face id."""

from pathlib import Path

_FILES = ("tokenizer*", "config.json", "generation_config.json", "chat_template*")


def local_folder(name: str) -> Path:
  """The folder that the id's tokenizer files are in, fetched or found in the hub's cache.

  Raises FileNotFoundError for what can be no id or cannot be had, ImportError without mtjax[hf].
  """
  if name.count("/") != 1 or name.startswith((".", "/", "~")):
    raise FileNotFoundError(
      f'there is no tokenizer {name!r}; it must be "bytes", "bundled", a file, a folder or a '
      "Hugging Face id (owner/name)"
    )
  try:
    import huggingface_hub
  except ImportError:
    raise ImportError(f"{name!r} is no folder; to fetch it, pip install mtjax[hf]") from None
  try:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES)))
  except Exception as error:
    reason = str(error).strip().split("\n")[0]
    raise FileNotFoundError(
      f"{name!r} is no local folder and could not be fetched from Hugging Face "
      f"({type(error).__name__}: {reason})"
    ) from None
