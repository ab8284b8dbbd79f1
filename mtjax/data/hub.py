"""Files of a Hugging Face id, owner/name or owner/name@revision."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

  A revision, owner/name@revision, is a branch, a tag or a whole commit of 40 digits; without one it
  is the branch main. `files` are patterns; `otherwise` is the part of an error message that says
  what `name` may be. Raises FileNotFoundError for a name that is no id or cannot be fetched,
  ValueError for a revision that is none or that is asked of something local, and ImportError
  without mtjax[hf].
  """
  check_revision(name)
  repository, at, revision = name.partition("@")
  if not _is_id(repository):
    what = otherwise.format(name=name)
    raise FileNotFoundError(f"there is no {what} a Hugging Face id (owner/name)")
  try:
    import huggingface_hub
  except ImportError:
    raise ImportError(f"{name!r} is no folder; to fetch it, `pip install mtjax[hf]`") from None
  which: dict[str, Any] = dict(revision=revision) if at else {}
  try:
    return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(files), **which))
  except Exception as error:
    reason = str(error).strip().split("\n")[0]
    what = f"revision {revision!r} of {repository!r}" if at else repr(name)
    raise FileNotFoundError(
      f"{what} is no local folder and could not be fetched from Hugging Face "
      f"({type(error).__name__}: {reason})"
    ) from None


def at_revision(name: str, revision: str | None) -> str:
  """Returns owner/name@revision, or the name itself for None.

  Raises ValueError for a name that is a local file or folder, no id at all, or that has a revision
  already, and for a revision that cannot be one.
  """
  if revision is None:
    return name
  if "@" in name:
    raise ValueError(f"{name!r} names a revision already: leave revision={revision!r} out")
  if Path(name).expanduser().exists():
    raise ValueError(_local(name, f"revision={revision!r}"))
  if not _is_id(name):
    raise ValueError(
      f"revision={revision!r} is for a Hugging Face id, owner/name; {name!r} is none: bundled "
      "models, files and folders have no revisions"
    )
  check_revision(f"{name}@{revision}")
  return f"{name}@{revision}"


def check_revision(name: str) -> None:
  """Raises ValueError for name@revision where `name` is local or no id, and for a bad revision.

  A name that is itself a file or a folder is for the caller to try first.
  """
  repository, at, revision = name.partition("@")
  if not at:
    return
  if repository and Path(repository).expanduser().exists():
    raise ValueError(_local(repository, f"@{revision}"))
  if not _is_id(repository):
    raise ValueError(
      f"{name!r} is no file or folder, and only a Hugging Face id has a revision: "
      "owner/name@revision"
    )
  if not re.fullmatch(r"\w[\w./+-]*", revision) or ".." in revision:
    raise ValueError(f"{name!r}: a revision must be a branch, a tag or a commit, got {revision!r}")


def _is_id(name: str) -> bool:
  return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _local(name: str, revision: str) -> str:
  return f"{name!r} is a local file or folder, which has no revisions: leave {revision} out"
