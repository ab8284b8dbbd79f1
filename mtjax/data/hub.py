"""Files of a Hugging Face id."""

from collections.abc import Sequence
from pathlib import Path

TOKENIZER_FILES = (
  "tokenizer*",
  "special_tokens_map.json",
  "added_tokens.json",
  "config.json",
  "generation_config.json",
  "chat_template*",
)
# Not *.safetensors: some repositories have their weights a second time, in another layout.
MODEL_FILES = (*TOKENIZER_FILES, "model*.safetensors", "model.safetensors.index.json")

_TOKENIZER = 'tokenizer {name!r}; it must be "bytes", "bundled", a file, a folder or'


def local_folder(
  name: str, files: Sequence[str] = TOKENIZER_FILES, otherwise: str = _TOKENIZER
) -> Path:
  """Returns the folder of an id's files, which are fetched or in the hub's cache.

  `files` are patterns; `otherwise` is the part of an error message that says what `name` may be.
  Raises FileNotFoundError for a name that is no id or cannot be fetched, and ImportError without
  mtjax[hf].
  """
  if name.count("/") != 1 or name.startswith((".", "/", "~")):
    what = otherwise.format(name=name)
    raise FileNotFoundError(f"there is no {what} a Hugging Face id (owner/name)")
  try:
    import huggingface_hub
  except ImportError:
    raise ImportError(f"{name!r} is no folder; to fetch it, `pip install mtjax[hf]`") from None
  try:
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(files)))
  except Exception as error:
    reason = str(error).strip().split("\n")[0]
    raise FileNotFoundError(
      f"{name!r} is no local folder and could not be fetched from Hugging Face "
      f"({type(error).__name__}: {reason})"
    ) from None
