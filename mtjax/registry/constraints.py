"""Constraints on texts as a config and the flags of launchers name them: `config.constraint`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mtjax.constraints import TokenDfa, regex, schema_pattern
from mtjax.data.tokenizers import Tokenizer

KINDS = ("regex", "json_schema")


def no_constraint() -> ConfigDict:
  """Returns the group `config.constraint` of texts that may be anything."""
  return ConfigDict(
    dict(
      regex="",  # an expression that the whole text matches, as "(yes|no)[.]"
      json_schema="",  # the file of a JSON schema that the text satisfies
    )
  )


def pattern_of(where: str, *, regex: str = "", json_schema: str = "") -> str:
  """Returns the regular expression of a constraint, of which at most one kind is set; "": none.

  `where` says in messages whose constraint it is. Raises ValueError for two kinds at once and for
  a schema that cannot be one, FileNotFoundError for a file that there is not, and ImportError,
  with the extra to install, without outlines-core.
  """
  if regex and json_schema:
    raise ValueError(f"{where} has both regex and json_schema: give one of them")
  if not json_schema:
    return regex
  path = Path(json_schema).expanduser()
  if not path.is_file():
    raise FileNotFoundError(f"there is no file {json_schema!r}, which {where} names as JSON schema")
  try:
    return schema_pattern(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{json_schema}: {error}") from None


def make_constraint(config: Mapping[str, Any], tokenizer: Tokenizer) -> TokenDfa | None:
  """Returns the constraint that a config names, `config.constraint`; None: it names none.

  Raises as `pattern_of` does, and ValueError for one that no text of the vocabulary satisfies.
  """
  settings = dict(config.get("constraint") or {})
  unknown = [name for name in settings if name not in KINDS]
  if unknown:
    raise ValueError(f"config.constraint has no setting {unknown[0]}; it has: {', '.join(KINDS)}")
  pattern = pattern_of("config.constraint", **settings)
  return regex(tokenizer, pattern) if pattern else None
