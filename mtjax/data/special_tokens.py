"""Special and added tokens, as the files beside a tokenizer.json declare them."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtjax.data.sources.text_files import read_object, whole_text

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"

# The names that transformers knows, in its order, which decides the ids of tokens without an id.
_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_KEYS = tuple(f"{name}_token" for name in _NAMES)
_LISTS = ("extra_special_tokens", "additional_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_INDEX = re.compile("[0-9]{1,9}")


@dataclasses.dataclass(frozen=True)
class DeclaredToken:
  """A token that tokenizer.json may lack."""

  content: str
  flags: Mapping[str, bool]  # as in the tokenizers library's AddedToken
  id: int | None  # None: the next free id
  file: Path  # the file that declares it


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
  """The tokens of a folder by name, as chat templates see them, and those to add, in order."""

  named: Mapping[str, str]  # "bos_token" and others, also names of the model's own
  declared: tuple[DeclaredToken, ...]


def read_special_tokens(folder: Path) -> SpecialTokens:
  """Returns the tokens that a folder declares, by the rules of transformers 5 (`_from_pretrained`).

  With added_tokens_decoder, only tokenizer_config.json counts. Without it the folder is of an older
  kind: names in special_tokens_map.json replace those in tokenizer_config.json, and
  added_tokens.json declares tokens with their ids. A name declares its token if tokenizer.json
  lacks it. Raises ValueError that names the file for content of another form.
  """
  config = folder / CONFIG
  content = read_object(config)
  sources = [(config, content)]
  older = "added_tokens_decoder" not in content
  if older:
    sources.append((folder / MAP, read_object(folder / MAP)))
  named = {token: each for source in sources for token, each in _named(*source)}
  listed = [each for source in sources for each in _listed(*source)]
  special = {each.content for each in (*named.values(), *listed)}
  with_ids = _of_added_tokens(folder / ADDED, special) if older else _of_decoder(config, content)
  known = [name for name in _KEYS if name in named]
  order = [*known, *(name for name in named if name not in known)]
  declared = (*with_ids, *(named[name] for name in order), *listed)
  return SpecialTokens(
    {name: named[name].content for name in order}, tuple(_special_if(special, declared))
  )


def _named(file: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, DeclaredToken]]:
  extra = content.get(_LISTS[0])
  for key, value in ({**content, **(extra if isinstance(extra, dict) else {})}).items():
    expected = key in _KEYS or (isinstance(extra, dict) and key in extra)
    other = key.endswith("_token") and (isinstance(value, str) or _has_content(value))
    if value is not None and (expected or other):
      yield key, _token(file, key, value)


def _listed(file: Path, content: Mapping[str, Any]) -> list[DeclaredToken]:
  key = next((key for key in _LISTS if content.get(key)), None)
  value = content.get(key, []) if key else []
  if isinstance(value, dict) and key == _LISTS[0]:
    return []
  if not isinstance(value, list):
    raise ValueError(f"{file}: {key} must be a list of tokens, got {value!r}")
  return [_token(file, str(key), each) for each in value]


def _of_decoder(file: Path, content: Mapping[str, Any]) -> list[DeclaredToken]:
  decoder = content["added_tokens_decoder"]
  if not isinstance(decoder, dict) or not all(map(_INDEX.fullmatch, decoder)):
    raise ValueError(f"{file}: added_tokens_decoder must map ids to tokens, got {decoder!r:.80}")
  tokens = {
    int(key): _token(file, f"added_tokens_decoder, {key}", token) for key, token in decoder.items()
  }
  return [dataclasses.replace(tokens[index], id=index) for index in sorted(tokens)]


def _of_added_tokens(file: Path, special: set[str]) -> list[DeclaredToken]:
  ids = read_object(file)
  if not all(type(index) is int and index >= 0 for index in ids.values()):
    raise ValueError(f"{file} must map tokens to ids, got {ids!r:.80}")
  return [
    DeclaredToken(
      whole_text(content, str(file)), dict(normalized=content not in special), index, file
    )
    for content, index in sorted(ids.items(), key=lambda item: item[1])
  ]


def _special_if(special: set[str], tokens: tuple[DeclaredToken, ...]) -> Iterator[DeclaredToken]:
  for token in tokens:
    is_special = token.content in special or token.flags.get("special", False)
    yield dataclasses.replace(token, flags={**token.flags, "special": is_special})


def _has_content(value: Any) -> bool:
  return isinstance(value, dict) and isinstance(value.get("content"), str)


def _token(file: Path, key: str, value: Any) -> DeclaredToken:
  """Reads a token, which is a text or the fields of an AddedToken."""
  where = f"{file}, {key}"
  if isinstance(value, str):
    return DeclaredToken(whole_text(value, where), {}, None, file)
  flags = {flag: value[flag] for flag in _FLAGS if flag in value} if _has_content(value) else None
  if flags is None or not all(isinstance(flag, bool) for flag in flags.values()):
    raise ValueError(
      f'{file}: {key} must be a token\'s text, or {{"content": text}} with flags that are true or '
      f"false, got {value!r:.80}"
    )
  return DeclaredToken(whole_text(value["content"], where), flags, None, file)
